import type { ConfigMap, Ingress, Secret } from '../kube/objects.ts'
import { defaultRetries, defaultTimeouts, type ClientAuth, type Policy, type Retries, type Timeouts, type Upstream } from './table.ts'

/** What annotations make of an Ingress. */
export interface Settings {
  readonly policies: readonly Policy[]
  readonly timeouts: Timeouts
  readonly maxBody: number
  readonly retries: Retries
  /** Not logged. */
  readonly silent: boolean
  /** An upstream as this Ingress wants it asked: by which protocol, and which of its endpoints. */
  sends(upstream: Upstream): Upstream
  /** TLS of its hosts is not opened but goes to the endpoint. */
  readonly passthrough: boolean
  /** Paths are regular expressions. */
  readonly regex: boolean
  /** Further hosts of the same rules. */
  readonly aliases: readonly string[]
  /** Endpoints are the Service's own address. */
  readonly serviceUpstream: boolean
  readonly clientAuth: ClientAuth | undefined
  /** This Ingress takes a share of the requests of another. */
  readonly canary: Canary | undefined
  readonly problems: readonly { readonly reason: string; readonly message: string }[]
}

/** Which requests a canary takes: by field, by cookie, by weight. */
export interface Canary {
  readonly weight: number
  readonly total: number
  readonly header: string | undefined
  readonly headerValue: string | undefined
  readonly headerPattern: string | undefined
  readonly cookie: string | undefined
}

/** Where annotations find what they name. */
export interface SettingsContext {
  readonly secrets: ReadonlyMap<string, Secret>
  /** By `namespace/name`. */
  configMap(name: string): ConfigMap | undefined
  readonly hasTls: boolean
  /** The class came from ingress-nginx: its defaults and quirks hold. */
  readonly nginx: boolean
  upstream(namespace: string, service: string, port: string | number | undefined): Upstream | string
  /** The controller's own, if it has one. */
  defaultBackend(): Upstream | string | undefined
}

export type SettingsOf = (ingress: Ingress, context: SettingsContext) => Settings

export const plainSettings: Settings = {
  policies: [],
  timeouts: defaultTimeouts,
  maxBody: 0,
  retries: defaultRetries,
  silent: false,
  sends: (upstream) => upstream,
  passthrough: false,
  regex: false,
  aliases: [],
  serviceUpstream: false,
  clientAuth: undefined,
  canary: undefined,
  problems: [],
}
