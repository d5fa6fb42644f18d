import type { Chains, IpSet } from './render.ts'

/** Chains of one table that lead from what the kernel has to what it should have. */
export interface ChainChanges {
  /** Chains to write whole, with their rules. */
  readonly write: readonly (readonly [string, readonly string[]])[]
  readonly remove: readonly string[]
}

/** What turns `have` into `want`; arrays that are the same value are not looked into. */
export function diffChains(have: Chains, want: Chains): ChainChanges {
  const write: (readonly [string, readonly string[]])[] = []
  for (const [name, rules] of want) {
    const old = have.get(name)
    if (old !== rules && (old === undefined || old.length !== rules.length || old.some((r, i) => r !== rules[i]))) write.push([name, rules])
  }
  return { write, remove: [...have.keys()].filter((name) => !want.has(name)) }
}

/** The part of an `iptables-restore --noflush` text that belongs to one table; empty if nothing changes. `first` are rules of the kernel's own chains to put in front. */
export function tableText(table: string, changes: ChainChanges, first: readonly (readonly [string, string])[] = [], dropped: readonly (readonly [string, string])[] = []): string {
  if (changes.write.length + changes.remove.length + first.length + dropped.length === 0) return ''
  const out: string[] = [`*${table}`]
  // Declaring a chain empties it. In descending order: the nft variant keeps chains sorted and looks for each place from the front.
  const names = [...changes.write.map(([name]) => name), ...changes.remove].sort((a, b) => (a < b ? 1 : -1))
  for (const name of names) out.push(`:${name} - [0:0]`)
  for (const [name, rules] of changes.write) for (const rule of rules) out.push(`-A ${name} ${rule}`)
  for (const [chain, rule] of dropped) out.push(`-D ${chain} ${rule}`)
  for (const [chain, rule] of first) out.push(`-I ${chain} 1 ${rule}`)
  for (const name of changes.remove) out.push(`-X ${name}`)
  out.push('COMMIT', '')
  return out.join('\n')
}

/** `ipset restore` texts: what may come before the rules that use it, and what must come after. */
export interface SetTexts {
  readonly before: string
  readonly after: string
}

/** What turns sets `have` into `want`. */
export function diffSets(have: ReadonlyMap<string, IpSet>, want: ReadonlyMap<string, IpSet>): SetTexts {
  const before: string[] = []
  const after: string[] = []
  for (const [name, set] of want) {
    const old = have.get(name)
    if (old === undefined) before.push(`create ${name} ${set.create}`)
    if (set.kept === true || old?.elements === set.elements) continue
    for (const e of set.elements) if (old?.elements.has(e) !== true) before.push(`add ${name} ${e}`)
    for (const e of old?.elements ?? []) if (!set.elements.has(e)) after.push(`del ${name} ${e}`)
  }
  for (const name of have.keys()) if (!want.has(name)) after.push(`destroy ${name}`)
  return { before: lines(before), after: lines(after) }
}

/** Makes sets be `want` whatever they were, each in one step; `existing` are names of ours that the kernel has. */
export function refillSets(existing: readonly string[], want: ReadonlyMap<string, IpSet>): SetTexts {
  const before: string[] = []
  for (const [name, set] of want) {
    before.push(`create ${name} ${set.create}`)
    if (set.kept === true) continue
    const fresh = `${name}-new`
    before.push(`create ${fresh} ${set.create}`, `flush ${fresh}`)
    for (const e of set.elements) before.push(`add ${fresh} ${e}`)
    before.push(`swap ${fresh} ${name}`, `destroy ${fresh}`)
  }
  return { before: lines(before), after: lines(existing.filter((name) => !want.has(name) && !name.endsWith('-new')).map((name) => `destroy ${name}`)) }
}

const lines = (list: readonly string[]): string => (list.length === 0 ? '' : `${list.join('\n')}\n`)
