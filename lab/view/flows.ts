import type { EndpointSlice, Service } from '../../kube/objects.ts'
import { parseIp } from '../../lib/ip.ts'

/** One connection that a node forwards: to a Service's address, or, where the proxy itself connects, only to the endpoint. */
export interface Flow {
  /** Tells it from every other one. */
  readonly key: string
  readonly protocol: 'TCP' | 'UDP'
  /** `ADDRESS:PORT` it was sent to; unknown where the proxy carries the bytes itself. */
  readonly to: string | undefined
  /** `ADDRESS:PORT` that answers. */
  readonly endpoint: string
  /** Not on its way out. */
  readonly live: boolean
}

/** What one node is asked for: three texts, split by a line that none of them has. */
export const question = ['sh', '-c', 'conntrack -L 2>/dev/null; echo ---; cat /proc/net/ip_vs_conn 2>/dev/null; echo ---; ss -Htn state established 2>/dev/null; exit 0'] as const

/** The flows in a node's answer to `question`. `carries`: its proxy carries bytes itself, so that its sockets are what tells. */
export function parseFlows(text: string, carries: boolean): readonly Flow[] {
  const [conntrack = '', ipvs = '', sockets = ''] = text.split(/^---$/m)
  return [...parseConntrack(conntrack), ...parseIpvs(ipvs), ...(carries ? parseSockets(sockets) : [])]
}

const at = (address: string, port: string | number): string => `${address.includes(':') ? `[${parseIp(address) ?? address}]` : address}:${port}`

/** Of connection tracking: what was translated. Its own end in the answer is the endpoint. */
export function parseConntrack(text: string): readonly Flow[] {
  return text.split('\n').flatMap((line): Flow[] => {
    const protocol = /^(tcp|udp)\s/.exec(line)?.[1]
    const ends = [...line.matchAll(/src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)/g)]
    const [asked, answered] = ends
    if (protocol === undefined || asked === undefined || answered === undefined) return []
    const [to, endpoint] = [at(asked[2]!, asked[4]!), at(answered[1]!, answered[3]!)]
    if (to === endpoint) return []
    const live = protocol === 'tcp' ? /\bESTABLISHED\b/.test(line) : /\[ASSURED\]/.test(line)
    return [{ key: `${protocol} ${at(asked[1]!, asked[3]!)} ${to}`, protocol: protocol === 'tcp' ? 'TCP' : 'UDP', to, endpoint, live }]
  })
}

/** Of IPVS: /proc/net/ip_vs_conn, addresses and ports in hexadecimal, IPv6 in brackets. */
export function parseIpvs(text: string): readonly Flow[] {
  const address = (word: string): string => (word.startsWith('[') ? (parseIp(word.slice(1, -1)) ?? word) : [0, 2, 4, 6].map((i) => Number.parseInt(word.slice(i, i + 2), 16)).join('.'))
  return text.split('\n').flatMap((line): Flow[] => {
    const [protocol, from, fromPort, to, toPort, end, endPort, state] = line.trim().split(/\s+/)
    if ((protocol !== 'TCP' && protocol !== 'UDP') || endPort === undefined) return []
    const port = (hex: string): number => Number.parseInt(hex, 16)
    return [
      {
        key: `ipvs ${protocol} ${from}:${fromPort} ${to}:${toPort}`,
        protocol,
        to: at(address(to!), port(toPort!)),
        endpoint: at(address(end!), port(endPort)),
        live: protocol === 'UDP' || state === 'ESTABLISHED',
      },
    ]
  })
}

/** Of the userspace proxy: the connections of the node's own programs, by whom they lead to. */
export function parseSockets(text: string): readonly Flow[] {
  return text.split('\n').flatMap((line): Flow[] => {
    const [, , own, peer] = line.trim().split(/\s+/)
    const m = /^\[?(?:::ffff:)?([^\]]+)\]?:(\d+)$/.exec(peer ?? '')
    return own === undefined || m === null ? [] : [{ key: `socket ${own} ${peer}`, protocol: 'TCP', to: undefined, endpoint: at(m[1]!, m[2]!), live: true }]
  })
}

/** How much an endpoint of a Service has to do. */
export interface EndpointLoad {
  readonly address: string
  readonly pod: string | undefined
  readonly ready: boolean
  readonly live: number
  /** New connections a second. */
  readonly rate: number
}

export interface ServiceLoad {
  readonly name: string
  readonly address: string
  readonly ports: readonly string[]
  readonly endpoints: readonly EndpointLoad[]
}

/** What each Service's endpoints carry. `flows`: of all nodes; `seen`: keys of the flows of the last look, so that new ones are told apart; `seconds` since then. */
export function loads(services: readonly Service[], slices: readonly EndpointSlice[], flows: readonly Flow[], seen: ReadonlySet<string> | undefined, seconds: number): readonly ServiceLoad[] {
  return services.map((service) => {
    const name = `${service.metadata.namespace}/${service.metadata.name}`
    const fronts = new Set<string>()
    for (const ip of service.spec.clusterIPs ?? [service.spec.clusterIP ?? '']) for (const p of service.spec.ports ?? []) fronts.add(`${p.protocol ?? 'TCP'} ${at(ip, p.port)}`)
    for (const p of service.spec.ports ?? []) if (p.nodePort !== undefined) fronts.add(`${p.protocol ?? 'TCP'} *:${p.nodePort}`)
    const mine = flows.filter((f) => f.to === undefined || fronts.has(`${f.protocol} ${f.to}`) || fronts.has(`${f.protocol} *:${f.to.slice(f.to.lastIndexOf(':') + 1)}`))
    const found = new Map<string, EndpointLoad>()
    for (const slice of slices) {
      if (`${slice.metadata.namespace}/${slice.metadata.labels?.['kubernetes.io/service-name']}` !== name) continue
      for (const endpoint of slice.endpoints ?? [])
        for (const port of slice.ports ?? []) {
          const address = at(endpoint.addresses[0]!, port.port ?? 0)
          const protocol = port.protocol ?? 'TCP'
          const here = mine.filter((f) => f.endpoint === address && f.protocol === protocol)
          const fresh = seen === undefined ? 0 : here.filter((f) => !seen.has(f.key)).length
          found.set(`${protocol} ${address}`, {
            address: protocol === 'TCP' ? address : `${address}/${protocol}`,
            pod: endpoint.targetRef?.kind === 'Pod' ? `${endpoint.targetRef.namespace}/${endpoint.targetRef.name}` : undefined,
            ready: endpoint.conditions?.ready !== false,
            live: here.filter((f) => f.live).length,
            rate: seconds > 0 ? fresh / seconds : 0,
          })
        }
    }
    return { name, address: service.spec.clusterIP ?? '', ports: (service.spec.ports ?? []).map((p) => `${p.port}${p.protocol === 'UDP' ? '/UDP' : ''}`), endpoints: [...found.values()] }
  })
}
