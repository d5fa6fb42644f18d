import { MemoryDriver, type MemoryOptions } from '../../lib/sockets/memory/driver.ts'
import type { Protocol, Wire } from '../../lib/sockets/seam.ts'
import { noHosts, withHosts, type HostChange } from '../hosts.ts'
import type { Frontend } from '../http1/engine.ts'
import { Server, type ServerOptions } from '../http1/server.ts'
import { defaultRetries, defaultTimeouts, emptyTable, routeOrder, type Endpoint, type HostRoutes, type Route, type RouteTable } from '../table.ts'

/** An endpoint of a test table. */
export function endpointAt(text: string): Endpoint {
  const i = text.lastIndexOf(':')
  return { address: text.slice(0, i), port: Number(text.slice(i + 1)), key: text }
}

/** A route as tests write it: `host/path` or `host=/path` for an exact one. */
export function route(at: string, endpoints: readonly string[], more: Partial<Route> = {}): Route {
  const m = /^([^/=]*)(=?)(\/.*)$/.exec(at)!
  return {
    host: m[1]!,
    path: m[3]!,
    kind: m[2] === '=' ? 'exact' : 'prefix',
    owner: `test/${at}`,
    service: 'test/svc',
    upstream: { name: `test/svc:${endpoints.join()}`, endpoints: endpoints.map(endpointAt) },
    policies: [],
    timeouts: defaultTimeouts,
    maxBody: 0,
    retries: defaultRetries,
    ...more,
  }
}

/** A table of these routes. */
export function tableOf(...routes: readonly Route[]): RouteTable {
  const by = new Map<string, Route[]>()
  for (const r of routes) by.set(r.host, [...(by.get(r.host) ?? []), r])
  const hosts: HostChange<HostRoutes>[] = []
  const wildcards: HostChange<HostRoutes>[] = []
  let any: HostRoutes | undefined
  for (const [host, list] of by) {
    const made: HostRoutes = { host, routes: list.sort(routeOrder), fallback: undefined }
    if (host === '') any = made
    else if (host.startsWith('*.')) wildcards.push([host.slice(2), made])
    else hosts.push([host, made])
  }
  return { ...emptyTable, hosts: withHosts(noHosts, hosts), wildcards: withHosts(noHosts, wildcards), any, endpoints: new Set(routes.flatMap((r) => r.upstream.endpoints.map((e) => e.key))) }
}

/** One end that keeps what it gets. */
export class Peer implements Protocol {
  wire!: Wire
  got = ''
  ended = false
  gone: string | undefined
  paused = false
  heard: (() => void) | undefined
  opened(w: Wire): void {
    this.wire = w
  }
  data(b: Buffer, from: number, to: number): void {
    this.got += b.toString('latin1', from, to)
    this.heard?.()
  }
  drain(): void {}
  eof(): void {
    this.ended = true
  }
  closed(why: string): void {
    this.gone = why
  }
  say(text: string): void {
    const b = Buffer.from(text, 'latin1')
    this.wire.write(b, 0, b.length)
  }
}

/** A backend that answers what it is told to, and keeps every octet it gets, by connection. */
export interface Backend {
  readonly connections: Peer[]
  /** Everything it got, connections one after the other. */
  readonly got: string
  close(): void
}

/** The engine, clients and backends on one network in memory. */
export class Net {
  readonly driver: MemoryDriver
  readonly server: Server
  readonly frontend: Frontend
  readonly #ready: Promise<unknown>

  constructor(table: RouteTable, options: { readonly network?: MemoryOptions; readonly server?: Partial<ServerOptions>; readonly secure?: boolean } = {}) {
    this.driver = new MemoryDriver({ auto: false, ...options.network })
    this.server = new Server({ driver: this.driver, random: () => 0, ...options.server })
    this.frontend = { table, secure: options.secure ?? false }
    this.#ready = this.server.listen({ host: '10.0.0.1', port: 80 }, this.frontend)
  }

  /** A backend at `at` that sends `answer` for each request head (or does nothing). */
  async backend(at: string, answer?: string | ((peer: Peer, head: string) => void)): Promise<Backend> {
    await this.#ready
    const connections: Peer[] = []
    const { address, port } = endpointAt(at)
    const listening = await this.driver.listen({ host: address, port }, () => {
      const peer = new Peer()
      connections.push(peer)
      let seen = 0
      peer.heard = () => {
        for (;;) {
          const end = peer.got.indexOf('\r\n\r\n', seen)
          if (end < 0) return
          const head = peer.got.slice(seen, end + 4)
          // Bodies are told by Content-Length here; chunked ones by their last chunk.
          const length = /\r\ncontent-length: (\d+)/i.exec(head)
          let next = end + 4 + Number(length?.[1] ?? 0)
          if (/\r\ntransfer-encoding: chunked/i.test(head)) {
            const last = peer.got.indexOf('0\r\n\r\n', end + 4)
            if (last < 0) return
            next = last + 5
          }
          if (peer.got.length < next) return
          seen = next
          if (typeof answer === 'string') peer.say(answer)
          else answer?.(peer, head)
        }
      }
      return peer
    })
    return {
      connections,
      get got() {
        return connections.map((c) => c.got).join('')
      },
      close: () => listening.close(),
    }
  }

  /** A client's connection. */
  async connect(): Promise<Peer> {
    await this.#ready
    const peer = new Peer()
    peer.wire = this.driver.connect({ host: '10.0.0.1', port: 80 }, peer)
    return peer
  }

  settle(): void {
    this.driver.settle()
  }
}

/** Heads without the lines that differ from run to run. */
export function steady(text: string): string {
  return text.replace(/X-Request-ID: [0-9a-f]{32}\r\n/g, '')
}
