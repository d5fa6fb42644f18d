import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Hold } from './holder/hold.ts'

/** Where a command shall run: the process whose namespaces it joins, as seen in the holder. */
export interface Target {
  /** A client outside is a `node` too: namespaces on the LAN. */
  readonly kind: 'node' | 'pod' | 'outside'
  readonly name: string
  readonly pid: number
}

/** What an agent leaves in its state folder about each Pod that runs. */
export interface PodRecord {
  readonly namespace: string
  readonly name: string
  readonly uid: string
  /** The first process of the Pod's namespaces. */
  readonly pid: number
  /** Its environment and working folder are those of the first container. */
  readonly env: Readonly<Record<string, string>>
  readonly hostNetwork: boolean
}

/** Finds a node, `outside`, or a Pod by `NAMESPACE/NAME`, or by `NAME` where only one namespace has it. */
export function findTarget(hold: Hold, name: string): Target & { readonly env?: Readonly<Record<string, string>> } {
  const node = hold.nodes.get(name) ?? hold.clients.get(name)
  if (node !== undefined) return { kind: 'node', name, pid: node.pid }
  if (name === 'outside') return { kind: 'outside', name, pid: process.pid }
  const found = podsOf(hold).filter((p) => `${p.namespace}/${p.name}` === name || p.name === name)
  const [pod, ...more] = found
  if (pod === undefined)
    throw new Error(
      `no node or running Pod is called "${name}"; there are ${[...hold.nodes.keys(), ...hold.clients.keys(), ...podsOf(hold).map((p) => `${p.namespace}/${p.name}`)].join(', ')}, and "outside"`,
    )
  if (more.length > 0) throw new Error(`"${name}" is in several namespaces: ${found.map((p) => `${p.namespace}/${p.name}`).join(', ')}`)
  return { kind: 'pod', name: `${pod.namespace}/${pod.name}`, pid: pod.pid, env: pod.env }
}

function podsOf(hold: Hold): readonly PodRecord[] {
  return hold.topology.nodes.flatMap((node) => {
    const folder = join(hold.paths.inside, 'nodes', node.name, 'agent', 'pods')
    return list(folder).flatMap((entry) => {
      try {
        return [JSON.parse(readFileSync(join(folder, entry, 'pod.json'), 'utf8')) as PodRecord]
      } catch {
        return []
      }
    })
  })
}

function list(folder: string): readonly string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}
