import { explainError, type Log } from '../../lib/log.ts'
import { familyOf, type IpFamily } from '../../lib/ip.ts'
import type { Kernel } from '../../linux/kernel.ts'
import type { Backend } from '../backend.ts'
import type { Refused, ServiceTable } from '../table.ts'
import { jumps, Renderer, refusedFronts, type Chains, type Rendered, type RenderOptions } from './render.ts'
import { diffChains, diffSets, refillSets, tableText } from './text.ts'

/** What this backend works with. */
export interface IptablesOptions {
  readonly kernel: Kernel
  readonly log: Log
  readonly render?: Omit<RenderOptions, 'bpf'>
}

const tables = ['nat', 'filter'] as const

/** Forwards by iptables rules, of either variant: a tree of chains in `nat`, a few rules and sets for what is refused in `filter`. */
export class IptablesBackend implements Backend {
  readonly name = 'iptables'
  readonly #kernel: Kernel
  readonly #log: Log
  readonly #render: Omit<RenderOptions, 'bpf'>
  readonly #families = new Map<IpFamily, FamilyState | 'absent'>()
  #bpf: boolean | undefined

  constructor({ kernel, log, render }: IptablesOptions) {
    this.#kernel = kernel
    this.#log = log
    this.#render = render ?? {}
  }

  async probe(): Promise<string | undefined> {
    try {
      await this.#kernel.ipset.restore('create SY-PROBE hash:ip,port\n')
      try {
        await this.#tryRules(4, [
          '-m set --match-set SY-PROBE dst,dst -j RETURN',
          '-m addrtype --dst-type LOCAL -j RETURN',
          '-m statistic --mode random --probability 0.5 -j RETURN',
          '-m conntrack --ctstate DNAT -j RETURN',
        ])
      } finally {
        await this.#kernel.ipset.restore('destroy SY-PROBE\n')
      }
      return undefined
    } catch (error) {
      return explainError(error)
    }
  }

  async apply(desired: ServiceTable, signal: AbortSignal): Promise<{ readonly refused: readonly Refused[] }> {
    this.#bpf ??= await this.#tryRules(4, ['-m bpf --bytecode "1,6 0 0 0" -j RETURN']).then(
      () => true,
      () => false,
    )
    const refused: Refused[] = [...refusedFronts(desired)]
    for (const family of [4, 6] as const) {
      const fronts = [...desired.fronts].filter(([, f]) => f.family === family)
      const wanted = fronts.length > 0 || desired.node.serviceCidrs.some((c) => familyOf(c) === family)
      let state = this.#families.get(family)
      if (!wanted) {
        // What this or an earlier process wrote for a family that is no longer there goes whole.
        if (state !== 'absent') await this.#removeFamily(family, signal)
        this.#families.set(family, 'absent')
        continue
      }
      if (state === undefined || state === 'absent') this.#families.set(family, (state = { renderer: new Renderer(family, { ...this.#render, bpf: this.#bpf }), committed: undefined }))
      try {
        await this.#applyFamily(family, state, desired, signal)
      } catch (error) {
        state.committed = undefined
        if (family === 4 || !isMissing(error)) throw error
        for (const [key, f] of fronts) refused.push({ front: key, object: `Service ${f.port}`, reason: explainError(error) })
      }
    }
    return { refused }
  }

  rules(): Readonly<Record<string, number>> {
    const out = { nat: 0, filter: 0 }
    for (const state of this.#families.values()) {
      if (state === 'absent' || state.committed === undefined) continue
      for (const table of tables) {
        for (const list of state.committed[table].values()) out[table] += list.length
        for (const [t] of jumps) if (t === table) out[table]++
      }
    }
    return out
  }

  async check(): Promise<readonly string[]> {
    const wrong: string[] = []
    for (const [family, state] of this.#families) {
      if (state === 'absent' || state.committed === undefined) continue
      const { committed } = state
      const have = await this.#read(family)
      for (const table of tables) {
        for (const [name, rules] of committed[table]) {
          const there = have.chains[table].get(name)
          if (there === undefined) wrong.push(`IPv${family}: chain ${name} of table ${table} is gone`)
          else if (there.length !== rules.length) wrong.push(`IPv${family}: chain ${name} of table ${table} has ${there.length} rules, not ${rules.length}`)
          else if (there.some((r, i) => r !== rules[i])) wrong.push(`IPv${family}: a rule of chain ${name} of table ${table} is "${there.find((r, i) => r !== rules[i])}"`)
        }
        for (const name of have.chains[table].keys()) if (!committed[table].has(name)) wrong.push(`IPv${family}: chain ${name} of table ${table} is left over`)
      }
      for (const [table, chain, rule] of missingJumps(have)) wrong.push(`IPv${family}: chain ${chain} of table ${table} does not lead to us (${rule})`)
      for (const name of committed.sets.keys()) if (!have.sets.includes(name)) wrong.push(`IPv${family}: set ${name} is gone`)
    }
    // Whatever is wrong, the next apply writes everything.
    if (wrong.length > 0) for (const state of this.#families.values()) if (state !== 'absent') state.committed = undefined
    return wrong
  }

  async close(): Promise<void> {}

  async cleanup(): Promise<void> {
    for (const family of [4, 6] as const) {
      this.#families.delete(family)
      await this.#removeFamily(family, new AbortController().signal)
    }
  }

  async #removeFamily(family: IpFamily, signal: AbortSignal): Promise<void> {
    try {
      const have = await this.#read(family)
      let text = ''
      for (const table of tables) {
        const present = have.jumps.filter(([t]) => t === table).map(([, chain, rule]) => [chain, rule] as const)
        text += tableText(table, { write: [], remove: [...have.chains[table].keys()] }, [], present)
      }
      if (text !== '') await this.#kernel.iptables(family).restore(text, signal)
      await this.#destroySets(have.sets)
    } catch (error) {
      // A machine without ip6tables or ipset has nothing of ours there.
      if (!isMissing(error)) throw error
    }
  }

  async #destroySets(names: readonly string[]): Promise<void> {
    if (names.length === 0) return
    try {
      await this.#kernel.ipset.restore(names.map((name) => `destroy ${name}\n`).join(''))
    } catch (error) {
      if (!isInUse(error)) throw error
      // The other variant of iptables has rules of ours that name some: those stay with it.
      for (const name of names) {
        await this.#kernel.ipset.restore(`destroy ${name}\n`).catch((e: unknown) => {
          if (!isInUse(e) && !/does not exist/.test(explainError(e))) throw e
        })
      }
    }
  }

  async #applyFamily(family: IpFamily, state: FamilyState, desired: ServiceTable, signal: AbortSignal): Promise<void> {
    const want = state.renderer.update(desired)
    const known = state.committed
    state.committed = undefined
    const have = known === undefined ? await this.#read(family) : undefined
    const sets = have === undefined ? diffSets(known!.sets, want.sets) : refillSets(have.sets, want.sets)
    let text = ''
    for (const table of tables) {
      const before: Chains = known?.[table] ?? new Map([...have!.chains[table].keys()].map((name) => [name, stale]))
      const first = have === undefined ? [] : missingJumps(have).flatMap(([t, chain, rule]) => (t === table ? [[chain, rule] as const] : []))
      text += tableText(table, diffChains(before, want[table]), first)
    }
    // Sets before the rules that name them, and out of them only after no rule needs it.
    if (sets.before !== '') await this.#kernel.ipset.restore(sets.before)
    if (text !== '') await this.#kernel.iptables(family).restore(text, signal)
    if (sets.after !== '')
      await this.#kernel.ipset.restore(sets.after).catch((error: unknown) => {
        if (!isInUse(error)) throw error
      })
    state.committed = want
    this.#log.debug('rules written', { family, bytes: text.length, setBytes: sets.before.length + sets.after.length, whole: have !== undefined })
  }

  /** What of ours the kernel has. */
  async #read(family: IpFamily): Promise<Present> {
    const text = await this.#kernel.iptables(family).save(tables)
    const sets = (await this.#kernel.ipset.save()).matchAll(/^create (\S+)/gm)
    return { ...presentIn(text), sets: [...sets].map((m) => m[1]!).filter((name) => name.startsWith(`SY-${family}-`)) }
  }

  async #tryRules(family: IpFamily, rules: readonly string[]): Promise<void> {
    const text = ['*nat', ':SY-PROBE - [0:0]', ...rules.map((r) => `-A SY-PROBE ${r}`), '-F SY-PROBE', '-X SY-PROBE', 'COMMIT', ''].join('\n')
    await this.#kernel.iptables(family).restore(text, new AbortController().signal)
  }
}

interface FamilyState {
  readonly renderer: Renderer
  /** What the kernel has, if we know. */
  committed: Rendered | undefined
}

interface Present {
  readonly chains: Readonly<Record<(typeof tables)[number], Chains>>
  readonly jumps: typeof jumps
  readonly sets: readonly string[]
}

/** Stands for rules we have not looked at; equal to none. */
const stale: readonly string[] = ['?']

function presentIn(text: string): Omit<Present, 'sets'> {
  const chains = { nat: new Map<string, string[]>(), filter: new Map<string, string[]>() }
  const found: (typeof jumps)[number][] = []
  let table: (typeof tables)[number] | undefined
  for (const line of text.split('\n')) {
    if (line.startsWith('*')) table = tables.find((t) => t === line.slice(1))
    if (table === undefined) continue
    if (line.startsWith(':SY-')) chains[table].set(line.slice(1, line.indexOf(' ')), [])
    else if (line.startsWith('-A SY-')) {
      const end = line.indexOf(' ', 3)
      chains[table].get(line.slice(3, end))?.push(line.slice(end + 1))
    } else if (line.startsWith('-A ')) {
      const jump = jumps.find(([t, chain, rule]) => t === table && line === `-A ${chain} ${rule}`)
      if (jump !== undefined) found.push(jump)
    }
  }
  return { chains, jumps: found }
}

const missingJumps = (have: Present): typeof jumps => jumps.filter((j) => !have.jumps.includes(j))

const isInUse = (error: unknown): boolean => /in use by a kernel component/.test(explainError(error))
const isMissing = (error: unknown): boolean => /is not installed/.test(explainError(error))
