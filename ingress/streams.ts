import { explainError, type Log } from '../lib/log.ts'
import type { Address, Bound, Driver, Listening, Protocol } from '../lib/sockets/seam.ts'
import { Door, doorTimeout } from './door.ts'
import type { Endpoint } from './table.ts'
import { inTurn, Tunnel } from './tunnel.ts'
import { endpointsOf } from './upstreams.ts'
import type { Objects } from './compile.ts'

/** A port that is passed to a Service as it is. */
export interface StreamPort {
  readonly protocol: 'TCP' | 'UDP'
  readonly port: number
  /** `namespace/service:port`, and its endpoints. */
  readonly name: string
  readonly endpoints: readonly Endpoint[]
  /** Clients' connections begin with a header of the PROXY protocol. */
  readonly proxied: boolean
  /** Connections to endpoints do. */
  readonly announces: boolean
}

/**
 * Reads a ConfigMap of `--tcp-services-configmap` or `--udp-services-configmap`: `"9000": namespace/service:port`, for TCP with `:PROXY` behind it where
 * clients begin with the PROXY protocol, and once more where endpoints want it.
 */
export function readStreams(protocol: 'TCP' | 'UDP', data: Readonly<Record<string, string>>, objects: Objects): { readonly ports: readonly StreamPort[]; readonly problems: readonly string[] } {
  const ports: StreamPort[] = []
  const problems: string[] = []
  for (const [key, value] of Object.entries(data)) {
    const port = Number(key)
    const m = /^([^/:]+)\/([^/:]+):([^:]+)(?::(PROXY)?)?(?::(PROXY)?)?$/i.exec(value.trim())
    if (!/^\d+$/.test(key) || port < 1 || port > 65_535 || m === null) {
      problems.push(`key ${key}: expected a port and namespace/service:port, got "${value}"`)
      continue
    }
    const [, namespace, service, target] = m as unknown as [string, string, string, string]
    const of = objects.services.get(`${namespace}/${service}`)
    const found = of?.spec.ports?.find((p) => (p.protocol ?? 'TCP') === protocol && (p.name === target || String(p.port) === target))
    if (of === undefined || found === undefined) {
      problems.push(`key ${key}: ${of === undefined ? `Service ${namespace}/${service} does not exist` : `Service ${namespace}/${service} has no ${protocol} port "${target}"`}`)
      continue
    }
    const proxied = protocol === 'TCP' && m[4] !== undefined
    ports.push({
      protocol,
      port,
      name: `${namespace}/${service}:${target}`,
      endpoints: endpointsOf(of, objects.slices.get(`${namespace}/${service}`) ?? [], found.name ?? '', protocol),
      proxied,
      announces: protocol === 'TCP' && m[5] !== undefined,
    })
  }
  return { ports, problems }
}

/** Milliseconds without a datagram after which a client's way to its endpoint is forgotten. */
const sessionTimeout = 600_000
/** Clients of one UDP port at a time; the one silent for longest makes room. */
const mostSessions = 10_000

/** Milliseconds until a port that could not be had is tried again. */
const retryAfter = 2000

/** Ports that are listened on and passed on. */
export class Streams {
  readonly #driver: Driver
  readonly #log: Log
  readonly #host: string
  readonly #open = new Map<string, { wanted: StreamPort; close(): void }>()
  readonly #failed = new Map<string, string>()
  #work: Promise<void> = Promise.resolve()
  #wanted: readonly StreamPort[] = []
  #again: NodeJS.Timeout | undefined

  constructor(driver: Driver, log: Log, host = '') {
    this.#driver = driver
    this.#log = log
    this.#host = host
  }

  /** Makes it so: connections that stand are left alone. Resolves when it is. */
  apply(ports: readonly StreamPort[]): Promise<void> {
    this.#wanted = ports
    this.#work = this.#work.then(() => this.#apply(ports))
    return this.#work
  }

  async #apply(ports: readonly StreamPort[]): Promise<void> {
    const wanted = new Map(ports.map((p) => [`${p.protocol} ${p.port}`, p]))
    for (const [key, { close }] of this.#open) {
      if (wanted.has(key)) continue
      close()
      this.#open.delete(key)
    }
    for (const [key, port] of wanted) {
      const there = this.#open.get(key)
      if (there !== undefined) {
        there.wanted = port
        continue
      }
      try {
        const state = { wanted: port, close: () => {} }
        if (port.protocol === 'TCP') {
          const listening: Listening = await this.#driver.listen({ host: this.#host, port: port.port }, () => this.#tcp(state.wanted), {
            failed: (error) => this.#log.error('a listener failed', { port: port.port, error: explainError(error) }),
          })
          state.close = () => listening.close()
        } else {
          const udp = new UdpPort(this.#driver, () => state.wanted)
          await udp.open({ host: this.#host, port: port.port })
          state.close = () => udp.close()
        }
        this.#open.set(key, state)
        this.#failed.delete(key)
        this.#log.info('a port is passed on', { protocol: port.protocol, port: port.port, to: port.name })
      } catch (error) {
        const why = explainError(error)
        if (this.#failed.get(key) !== why) this.#log.error('a port cannot be passed on', { protocol: port.protocol, port: port.port, error: why })
        this.#failed.set(key, why)
        // Whoever has the port may let go of it.
        this.#again ??= setTimeout(() => {
          this.#again = undefined
          void this.apply(this.#wanted)
        }, retryAfter).unref()
      }
    }
  }

  #tcp(port: StreamPort): Protocol {
    const tunnel = (): Tunnel => new Tunnel({ name: port.name, endpoints: port.endpoints }, { driver: this.#driver, connectTimeout: 5000, announces: port.announces })
    if (!port.proxied) return tunnel()
    let timer: NodeJS.Timeout
    return new Door(
      { proxied: true, secure: false, inside: tunnel },
      (door) => void (timer = setTimeout(() => door.wire.abort(), doorTimeout).unref()),
      () => clearTimeout(timer),
    )
  }

  async close(): Promise<void> {
    clearTimeout(this.#again)
    await this.#work
    clearTimeout(this.#again)
    for (const { close } of this.#open.values()) close()
    this.#open.clear()
  }
}

/** What one client of a UDP port sends goes to one endpoint, as long as both talk and it is there. */
class UdpPort {
  readonly #driver: Driver
  readonly #wanted: () => StreamPort
  readonly #sessions = new Map<string, Session>()
  #bound: Bound | undefined
  #stop = (): void => {}

  constructor(driver: Driver, wanted: () => StreamPort) {
    this.#driver = driver
    this.#wanted = wanted
  }

  async open(at: Address): Promise<void> {
    this.#bound = await this.#driver.bind(at, (batch) => {
      for (let i = 0; i < batch.count; i++) {
        const peer = batch.peer(i)
        const key = `${peer.host} ${peer.port}`
        const { endpoints } = this.#wanted()
        let session = this.#sessions.get(key)
        if (session !== undefined && !endpoints.some((e) => e.key === session!.endpoint.key)) {
          session.close()
          this.#sessions.delete(key)
          session = undefined
        }
        if (session === undefined) {
          const endpoint = inTurn(this.#wanted())[0]
          if (endpoint === undefined) continue
          session = new Session(this.#driver, endpoint, this.#bound!, peer, batch.local(i))
        }
        // The last to have spoken stands last.
        this.#sessions.delete(key)
        this.#sessions.set(key, session)
        session.send(Buffer.from(batch.bytes.subarray(batch.start(i), batch.end(i))), this.#driver.now)
        if (this.#sessions.size > mostSessions) this.#forgetFirst()
      }
    })
    this.#stop = this.#driver.every(1000, () => {
      for (const [key, s] of this.#sessions) {
        if (this.#driver.now - s.heard < sessionTimeout) continue
        s.close()
        this.#sessions.delete(key)
      }
    })
  }

  #forgetFirst(): void {
    for (const [key, s] of this.#sessions) {
      s.close()
      this.#sessions.delete(key)
      return
    }
  }

  close(): void {
    this.#stop()
    this.#bound?.close()
    for (const s of this.#sessions.values()) s.close()
    this.#sessions.clear()
  }
}

class Session {
  readonly endpoint: Endpoint
  heard = 0
  #bound: Bound | undefined
  #closed = false
  #early: Buffer[] = []

  constructor(driver: Driver, endpoint: Endpoint, front: Bound, peer: Address, local: Address) {
    this.endpoint = endpoint
    const to = { host: endpoint.address, port: endpoint.port }
    driver
      .bind(
        { host: '', port: 0 },
        (batch) => {
          this.heard = driver.now
          for (let i = 0; i < batch.count; i++) front.send(batch.bytes, batch.start(i), batch.end(i), peer, local)
        },
        { connect: to, bufferSize: 262_144, failed: () => {} },
      )
      .then(
        (bound) => {
          if (this.#closed) return bound.close()
          this.#bound = bound
          for (const b of this.#early.splice(0)) bound.send(b, 0, b.length, to)
        },
        () => (this.#closed = true),
      )
  }

  send(b: Buffer, now: number): void {
    this.heard = now
    if (this.#bound === undefined) {
      if (this.#early.length < 64) this.#early.push(b)
    } else this.#bound.send(b, 0, b.length, { host: this.endpoint.address, port: this.endpoint.port })
  }

  close(): void {
    this.#closed = true
    this.#bound?.close()
  }
}
