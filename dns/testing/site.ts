import type { KubeObject } from '../../kube/objects.ts'
import { silent } from '../../lib/log.ts'
import { Metrics } from '../../lib/metrics.ts'
import type { Driver } from '../../lib/sockets/seam.ts'
import type { Answer } from '../answer.ts'
import { Cluster, type Kind, type Kinds } from '../cluster.ts'
import { configure, type Configuration } from '../config.ts'
import { parseCorefile } from '../corefile.ts'
import { meters, type Environment } from '../handlers/plugin.ts'
import { reduceIngress, reduceNamespace, reducePod, reduceService, reduceSlice } from '../reduce.ts'
import { Server, type Origin } from '../server.ts'
import { printData } from '../wire/data.ts'
import { decode, encode, type Message, type Rec } from '../wire/message.ts'
import { nameOf, printName } from '../wire/name.ts'
import { Flag, rcodeName, typeName, typeNumber } from '../wire/types.ts'

/** A server without sockets: objects and a Corefile in, octets in, octets out. */
export interface TestSite {
  readonly cluster: Cluster
  readonly server: Server
  readonly env: Environment
  readonly configuration: Configuration
  put(...objects: readonly KubeObject[]): void
  remove(...objects: readonly KubeObject[]): void
  /** The answer as text: rcode and flags, then the records of each section. */
  ask(name: string, type?: string, more?: AskOptions): Promise<string>
  message(name: string, type?: string, more?: AskOptions): Promise<Message | undefined>
}

export interface AskOptions {
  readonly protocol?: 'udp' | 'tcp'
  readonly client?: string
  readonly class?: number
  readonly edns?: { readonly size: number; readonly dnssec?: boolean }
  /** Leaves authority and additional sections out of the text. */
  readonly brief?: boolean
}

/** A driver that has no sockets; only time. */
export const noSockets: Driver = {
  name: 'memory',
  get now() {
    return performance.now()
  },
  arena: (size) => Buffer.alloc(size),
  listen: () => Promise.reject(new Error('no sockets here')),
  connect: () => {
    throw new Error('no sockets here')
  },
  bind: () => Promise.reject(new Error('no sockets here')),
  every: () => () => {},
  flush: () => {},
  splice: () => false,
  detach: () => undefined,
  close: async () => {},
}

const corefile = `.:53 {
  kubernetes cluster.local in-addr.arpa ip6.arpa {
    pods insecure
    fallthrough in-addr.arpa ip6.arpa
  }
}`

/** A server over `objects`, complete, with the random numbers of `random` (default: none at all). */
export function site(
  objects: readonly KubeObject[],
  options: {
    readonly corefile?: string
    readonly random?: () => number
    readonly files?: Readonly<Record<string, string>>
    readonly env?: Partial<Environment>
    readonly now?: () => number
    readonly complete?: boolean
  } = {},
): TestSite {
  const cluster = new Cluster({ self: ['10.96.0.10'], soon: () => {}, now: options.now ?? (() => 1_700_000_000) })
  const env: Environment = {
    log: silent,
    metrics: meters(new Metrics()),
    driver: noSockets,
    resolvConf: '/etc/resolv.conf',
    cluster,
    want: () => {},
    read: (path) => options.files?.[path],
    self: [],
    now: () => performance.now(),
    random: options.random ?? (() => 0),
    ...options.env,
  }
  const blocks = parseCorefile(options.corefile ?? corefile, 'Corefile', {
    files: (pattern) =>
      Object.entries(options.files ?? {})
        .filter(([path]) => path === pattern || (pattern.includes('*') && path.startsWith(pattern.slice(0, pattern.indexOf('*'))) && path.endsWith(pattern.slice(pattern.lastIndexOf('*') + 1))))
        .map(([path, text]) => ({ path, text })),
    environment: () => undefined,
    port: 53,
  })
  const configuration = configure(blocks, env, [''])
  const server = new Server(
    configuration.listeners.flatMap((l) => l.sites),
    silent,
  )
  const change = (all: readonly KubeObject[], gone: boolean): void => {
    for (const object of all) {
      const [kind, kept] = reduced(object)
      cluster.put(kind, gone ? undefined : (kept as never), kept as never)
    }
    cluster.flush()
  }
  change(objects, false)
  cluster.complete = options.complete ?? true
  const message = async (name: string, type = 'A', more: AskOptions = {}): Promise<Message | undefined> => {
    const b = Buffer.alloc(600)
    const end = encode(
      {
        id: 4711,
        flags: Flag.RD,
        rcode: 0,
        question: { name: nameOf(name), type: typeNumber(type)!, class: more.class ?? 1 },
        edns: more.edns === undefined ? undefined : { size: more.edns.size, dnssec: more.edns.dnssec === true },
      },
      b,
    )
    const origin: Origin = { client: { host: more.client ?? '10.244.1.9', port: 40_000 }, local: { host: '10.96.0.10', port: 53 }, protocol: more.protocol ?? 'tcp' }
    const reply = await server.respond(b, 0, end, origin)
    return reply === undefined ? undefined : decode(reply)
  }
  return {
    cluster,
    server,
    env,
    configuration,
    put: (...all) => change(all, false),
    remove: (...all) => change(all, true),
    message,
    ask: async (name, type, more) => {
      const m = await message(name, type, more)
      return m === undefined ? 'dropped' : printMessage(m, more?.brief === true)
    },
  }
}

function reduced(object: KubeObject): [Kind, Kinds[Kind]] {
  switch (object.kind) {
    case 'Service':
      return ['service', reduceService(object as Kinds['service'])]
    case 'EndpointSlice':
      return ['slice', reduceSlice(object as Kinds['slice'])]
    case 'Namespace':
      return ['namespace', reduceNamespace(object as Kinds['namespace'])]
    case 'Ingress':
      return ['ingress', reduceIngress(object as Kinds['ingress'])]
    case 'Pod':
      return ['pod', reducePod(object as Kinds['pod'])]
    default:
      throw new Error(`not a kind with names: ${object.kind ?? ''}`)
  }
}

/** A message as text, sorted by section; SOA records as `soa ZONE`. */
export function printMessage(m: Message, brief = false): string {
  const flags = [m.flags & Flag.AA ? 'aa' : '', m.flags & Flag.TC ? 'tc' : ''].filter((f) => f !== '').join(' ')
  const lines = [`${rcodeName(m.rcode)}${flags === '' ? '' : ` ${flags}`}`, ...m.answers.map(printRec)]
  if (!brief) {
    lines.push(...m.authority.map((r) => `authority ${printRec(r)}`))
    lines.push(...m.additional.map((r) => `additional ${printRec(r)}`))
  }
  return lines.join('\n')
}

export const printAnswer = (a: Answer): string => [rcodeName(a.rcode), ...a.answers.map(printRec)].join('\n')

export function printRec(r: Rec): string {
  if (r.type === 6) return `soa ${printName(r.name)} ${r.ttl}`
  return `${printName(r.name)} ${r.ttl} ${typeName(r.type)} ${printData(r.type, r.data)}`
}
