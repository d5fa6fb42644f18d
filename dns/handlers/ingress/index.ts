import { bare, type Answer, type Handler, type Query } from '../../answer.ts'
import type { Cluster } from '../../cluster.ts'
import { CorefileError, zonesOf, type Line } from '../../corefile.ts'
import { addressData, addressType } from '../../wire/data.ts'
import { fold, parentOf, parseName, root, within, type Name, type Octets } from '../../wire/name.ts'
import { Class, Rcode } from '../../wire/types.ts'
import { unknown, wholeNumber, type Place, type Plugin } from '../plugin.ts'

/** Hosts of Ingresses resolve to the ingress Service inside the cluster, instead of going out and coming back. */
export const ingress: Plugin = {
  name: 'ingress',
  build: (lines, place) => lines.map((line) => build(line, place)),
}

function build(line: Line, place: Place): IngressHandler {
  const { env } = place
  let service: string | undefined
  let classes: readonly string[] | undefined
  let ttl = 5
  for (const option of line.block) {
    switch (option.name) {
      case 'service':
        if (!/^[^/]+\/[^/]+$/.test(option.args[0] ?? '')) throw new CorefileError(option, 'service: expected NAMESPACE/NAME')
        service = option.args[0]
        break
      case 'class':
        if (option.args.length === 0) throw new CorefileError(option, 'class: expected the names of IngressClasses')
        classes = option.args
        break
      case 'ttl':
        ttl = wholeNumber(option.args[0], option, 'ttl', 0, 3600)
        break
      default:
        unknown(line, option)
    }
  }
  if (service === undefined) throw new CorefileError(line, 'ingress: expected service NAMESPACE/NAME, where Ingresses are served')
  env.want('ingress')
  const zones = line.args.length > 0 ? line.args.flatMap((a) => zonesOf(a, line)) : place.zones
  const handler = new IngressHandler(env.cluster, { zones, service, classes: classes === undefined ? undefined : new Set(classes), ttl })
  place.closing(env.cluster.whenChanged('ingress', () => handler.reload()))
  return handler
}

interface Options {
  readonly zones: readonly Name[]
  readonly service: string
  readonly classes: ReadonlySet<string> | undefined
  readonly ttl: number
}

export class IngressHandler implements Handler {
  readonly name = 'ingress'
  readonly manner = 'folds'
  readonly #cluster: Cluster
  readonly #options: Options
  #hosts = new Set<Name>()
  /** Names directly below which every name is one. */
  #wild = new Set<Name>()
  changed: (() => void) | undefined

  constructor(cluster: Cluster, options: Options) {
    this.#cluster = cluster
    this.#options = options
    this.reload()
  }

  /** Reads the hosts of all Ingresses again. */
  reload(): void {
    const { zones, classes } = this.#options
    const hosts = new Set<Name>()
    const wild = new Set<Name>()
    for (const { spec } of this.#cluster.objects.ingress.values()) {
      const cls = spec?.ingressClassName
      if (classes !== undefined && (cls === undefined || !classes.has(cls))) continue
      for (const { host } of spec?.rules ?? []) {
        const name = host === undefined || host === '' ? undefined : parseName(host.replace(/^\*\./, ''))
        if (name !== undefined && zones.some((z) => within(fold(name), z))) (host!.startsWith('*.') ? wild : hosts).add(fold(name))
      }
    }
    const same = hosts.size === this.#hosts.size && wild.size === this.#wild.size && [...hosts].every((h) => this.#hosts.has(h)) && [...wild].every((h) => this.#wild.has(h))
    this.#hosts = hosts
    this.#wild = wild
    if (!same) this.changed?.()
  }

  touches(): readonly Name[] {
    return [...this.#hosts]
  }

  async answer(query: Query, next: (query?: Query) => Promise<Answer>): Promise<Answer> {
    if (!this.#hosts.has(query.name) && (query.name === root || !this.#wild.has(parentOf(query.name)))) return next()
    const { service, ttl } = this.#options
    const spec = this.#cluster.objects.service.get(service)?.spec
    const addresses = (spec?.clusterIPs ?? [spec?.clusterIP ?? '']).map((ip) => addressData(ip)).filter((d): d is Octets => d !== undefined)
    // Without the Service the way outside is better than none.
    if (addresses.length === 0) return next()
    const answers = addresses.filter((d) => addressType(d) === query.type).map((data) => ({ name: query.name, type: query.type, class: Class.IN, ttl, data }))
    return { ...bare(Rcode.NOERROR, this.name, `host of an Ingress, served by Service ${service}`, [], true), answers }
  }
}
