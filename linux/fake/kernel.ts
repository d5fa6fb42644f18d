import { parseRule } from '../iptables/parse.ts'
import type { Family, Kernel, Netlink, NetlinkProtocol, NftObject } from '../kernel.ts'

/** What a fake kernel can be told. */
export interface FakeOptions {
  readonly variant?: 'legacy' | 'nf_tables'
  /** Called before every write, with its number from 1; what it returns is thrown, and nothing is written. */
  readonly fault?: (write: number, what: string) => Error | undefined
  readonly netlink?: (protocol: NetlinkProtocol) => Netlink
  readonly nft?: { run(script: string): Promise<void>; list(table: string): Promise<NftObject[]> }
}

interface Chain {
  readonly policy: string
  readonly rules: string[]
}
type Tables = Map<string, Map<string, Chain>>
interface FakeSet {
  readonly type: string
  readonly options: string
  readonly elements: Set<string>
}

const builtin: Readonly<Record<string, readonly string[]>> = {
  nat: ['PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING'],
  filter: ['INPUT', 'FORWARD', 'OUTPUT'],
  mangle: ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING'],
  raw: ['PREROUTING', 'OUTPUT'],
}
const onlyIn: Readonly<Record<string, string>> = { REJECT: 'filter', DNAT: 'nat', REDIRECT: 'nat', MASQUERADE: 'nat', SNAT: 'nat' }
const targets = new Set(['ACCEPT', 'DROP', 'RETURN', 'MARK', 'SET', 'LOG', 'CONNMARK', 'TPROXY', 'QUEUE', ...Object.keys(onlyIn)])

/** iptables, ipset and sysctl in memory: reads what their restore commands read, refuses what they refuse, and prints itself. */
export class FakeKernel implements Kernel {
  readonly #options: FakeOptions
  readonly #families: Record<Family, Tables> = { 4: freshTables(), 6: freshTables() }
  readonly #sets = new Map<string, FakeSet>()
  readonly #sysctls = new Map<string, string>()
  #writes = 0

  constructor(options: FakeOptions = {}) {
    this.#options = options
  }

  /** How often something was written. */
  get writes(): number {
    return this.#writes
  }

  iptables(family: Family): ReturnType<Kernel['iptables']> {
    return {
      restore: async (text) => {
        this.#write(`iptables-restore ${family}`)
        this.#restore(family, typeof text === 'string' ? text : Buffer.from(text).toString('utf8'))
      },
      save: async (tables) => tables.map((t) => this.#save(family, t)).join(''),
      variant: async () => this.#options.variant ?? 'nf_tables',
    }
  }

  readonly nft: Kernel['nft'] = {
    run: async (script) => {
      this.#write('nft')
      if (this.#options.nft === undefined) throw new Error('nft is not installed')
      await this.#options.nft.run(typeof script === 'string' ? script : Buffer.from(script).toString('utf8'))
    },
    list: async (table) => {
      if (this.#options.nft === undefined) throw new Error('nft is not installed')
      return this.#options.nft.list(table)
    },
  }

  readonly ipset: Kernel['ipset'] = {
    restore: async (text) => {
      this.#write('ipset restore')
      const lines = (typeof text === 'string' ? text : Buffer.from(text).toString('utf8')).split('\n')
      // As in the kernel, what stood before a failing line stays.
      for (const [i, line] of lines.entries()) if (line !== '') this.#setCommand(line, i + 1)
    },
    save: async () => {
      const out: string[] = []
      for (const name of [...this.#sets.keys()].sort()) {
        const set = this.#sets.get(name)!
        out.push(`create ${name} ${set.type}${set.options === '' ? '' : ` ${set.options}`}`)
        for (const e of [...set.elements].sort()) out.push(`add ${name} ${e}`)
      }
      return out.map((l) => `${l}\n`).join('')
    },
  }

  netlink(protocol: NetlinkProtocol): Netlink {
    if (this.#options.netlink === undefined) throw new Error(`netlink (${protocol}) is not available here`)
    return this.#options.netlink(protocol)
  }

  readonly sysctl: Kernel['sysctl'] = {
    get: async (name) => this.#sysctls.get(name) ?? '0',
    set: async (name, value) => void this.#sysctls.set(name, value),
  }

  /** Everything in it, as text that does not depend on the order things came in. */
  async print(): Promise<string> {
    const parts: string[] = []
    for (const family of [4, 6] as const) for (const table of Object.keys(builtin)) parts.push(`# IPv${family}\n${this.#save(family, table)}`)
    return parts.join('') + (await this.ipset.save())
  }

  #write(what: string): void {
    this.#writes++
    const error = this.#options.fault?.(this.#writes, what)
    if (error !== undefined) throw error
  }

  #save(family: Family, name: string): string {
    const table = this.#families[family].get(name)
    if (table === undefined) throw new Error(`there is no table ${name}`)
    const own = [...table.keys()].filter((c) => !builtin[name]!.includes(c)).sort()
    const names = [...builtin[name]!, ...own]
    const out = [`*${name}`, ...names.map((c) => `:${c} ${table.get(c)!.policy} [0:0]`)]
    for (const c of names) for (const rule of table.get(c)!.rules) out.push(`-A ${c} ${rule}`)
    out.push('COMMIT', '')
    return out.join('\n')
  }

  /** Table after table, each as a whole or not at all. */
  #restore(family: Family, text: string): void {
    const tables = this.#families[family]
    let name: string | undefined
    let table: Map<string, Chain> = new Map()
    for (const [i, line] of text.split('\n').entries()) {
      const fail = (why: string): never => {
        throw new Error(`iptables-restore failed: line ${i + 1} (${line}): ${why}`)
      }
      if (line === '' || line.startsWith('#')) continue
      if (line.startsWith('*')) {
        name = line.slice(1)
        const now = tables.get(name)
        if (now === undefined) fail(`there is no table ${name}`)
        table = new Map([...now!].map(([c, { policy, rules }]) => [c, { policy, rules: [...rules] }]))
        continue
      }
      if (name === undefined) fail('no table')
      if (line === 'COMMIT') {
        this.#verify(name!, table, fail)
        tables.set(name!, table)
        name = undefined
        continue
      }
      if (line.startsWith(':')) {
        const [chain, policy] = line.slice(1).split(' ')
        if (chain!.length > 28) fail('chain name too long (must be under 29 chars)')
        table.set(chain!, { policy: builtin[name!]!.includes(chain!) ? (policy === '-' ? table.get(chain!)!.policy : policy!) : '-', rules: [] })
        continue
      }
      const m = /^-([AIDFX]) (\S+)(?: (.*))?$/.exec(line)
      if (m === null) return fail('not understood')
      const [, verb, chainName, rest = ''] = m
      const chain = table.get(chainName!)
      if (chain === undefined) return fail('No chain/target/match by that name.')
      switch (verb) {
        case 'A':
          chain.rules.push(rest)
          break
        case 'I': {
          const at = /^(\d+) /.exec(rest)
          chain.rules.splice(at === null ? 0 : Number(at[1]) - 1, 0, at === null ? rest : rest.slice(at[0].length))
          break
        }
        case 'D': {
          const at = chain.rules.indexOf(rest)
          if (at < 0) fail('Bad rule (does a matching rule exist in that chain?)')
          chain.rules.splice(at, 1)
          break
        }
        case 'F':
          chain.rules.length = 0
          break
        default:
          if (chain.rules.length > 0) fail('Directory not empty')
          for (const { rules } of table.values()) if (rules.some((r) => r.endsWith(` ${chainName}`) || r.includes(`-j ${chainName} `))) fail('Too many links')
          table.delete(chainName!)
      }
    }
    if (name !== undefined) throw new Error('iptables-restore failed: COMMIT expected')
  }

  #verify(name: string, table: ReadonlyMap<string, Chain>, fail: (why: string) => never): void {
    for (const [chain, { rules }] of table) {
      for (const text of rules) {
        const rule = parseRule(text)
        const { target } = rule
        if (target !== undefined && !targets.has(target) && !table.has(target)) fail(`chain ${chain} leads to ${target}, which does not exist`)
        if (target !== undefined && Object.hasOwn(onlyIn, target) && onlyIn[target] !== name) fail(`${target} is not allowed in table ${name}`)
        for (const m of rule.matches) for (const o of m.options) if (o.name === '--match-set' && !this.#sets.has(o.values[0]!)) fail(`Set ${o.values[0]} doesn't exist.`)
        for (const o of rule.targetOptions) if (o.name === '--add-set' && !this.#sets.has(o.values[0]!)) fail(`Set ${o.values[0]} doesn't exist.`)
      }
    }
  }

  #setCommand(line: string, number: number): void {
    const fail = (why: string): never => {
      throw new Error(`ipset restore failed: Error in line ${number} (${line}): ${why}`)
    }
    const [verb, name, what, ...rest] = line.split(' ')
    const set = this.#sets.get(name!)
    if (verb === 'create') {
      if (name!.length > 31) fail('setname is longer than 31 characters')
      const options = rest.join(' ')
      if (set === undefined) this.#sets.set(name!, { type: what!, options, elements: new Set() })
      else if (set.type !== what || set.options !== options) fail('Set cannot be created: set with the same name already exists')
      return
    }
    if (set === undefined) return fail('The set with the given name does not exist')
    switch (verb) {
      case 'add':
        if (what!.split(',').length !== set.type.split(':')[1]!.split(',').length) fail('Syntax error: element does not fit the type')
        set.elements.add(what!)
        break
      case 'del':
        set.elements.delete(what!)
        break
      case 'flush':
        set.elements.clear()
        break
      case 'swap': {
        const other = this.#sets.get(what!)
        if (other === undefined) return fail('Sets cannot be swapped: the second set does not exist')
        if (other.type !== set.type) fail('The sets cannot be swapped: their type does not match')
        this.#sets.set(name!, other)
        this.#sets.set(what!, set)
        break
      }
      case 'destroy':
        for (const tables of Object.values(this.#families))
          for (const table of tables.values())
            for (const { rules } of table.values()) if (rules.some((r) => r.includes(`-set ${name} `))) fail('Set cannot be destroyed: it is in use by a kernel component')
        this.#sets.delete(name!)
        break
      default:
        fail('Unknown argument')
    }
  }
}

function freshTables(): Tables {
  return new Map(Object.entries(builtin).map(([name, chains]) => [name, new Map(chains.map((c) => [c, { policy: 'ACCEPT', rules: [] }]))]))
}
