/** One option of a match or target: `! --dports 80,443`. */
export interface Option {
  readonly name: string
  readonly not: boolean
  readonly values: readonly string[]
}

/** A match module and its options; `module` is empty for what needs none (`-s`, `-d`, `-i`, `-o`, `-p`). */
export interface Match {
  readonly module: string
  readonly options: readonly Option[]
}

/** One rule as `iptables-save` prints it. */
export interface Rule {
  /** Without the leading `-A CHAIN`. */
  readonly text: string
  readonly matches: readonly Match[]
  readonly target: string | undefined
  readonly goto: boolean
  readonly targetOptions: readonly Option[]
}

export interface Chain {
  /** Of the kernel's own chains; `-` for others. */
  readonly policy: string
  readonly rules: readonly Rule[]
}

/** Tables by name, chains by name. */
export type Ruleset = ReadonlyMap<string, ReadonlyMap<string, Chain>>

/** Reads what `iptables-save` printed, or an `iptables-restore` text that only declares and appends. */
export function parseSave(text: string): Ruleset {
  const tables = new Map<string, Map<string, { policy: string; rules: Rule[] }>>()
  let table: Map<string, { policy: string; rules: Rule[] }> | undefined
  for (const [i, line] of text.split('\n').entries()) {
    if (line === '' || line.startsWith('#') || line === 'COMMIT') continue
    if (line.startsWith('*')) {
      const name = line.slice(1)
      table = tables.get(name)
      if (table === undefined) tables.set(name, (table = new Map()))
      continue
    }
    if (table === undefined) throw new Error(`line ${i + 1}: "${line}" is in no table`)
    if (line.startsWith(':')) {
      const [name, policy] = line.slice(1).split(' ')
      table.set(name!, { policy: policy ?? '-', rules: [] })
      continue
    }
    const m = /^(?:\[\d+:\d+\] )?-A (\S+) ?(.*)$/.exec(line)
    const chain = m === null ? undefined : table.get(m[1]!)
    if (m === null || chain === undefined) throw new Error(`line ${i + 1}: "${line}" ${m === null ? 'is no rule' : 'is in a chain that was not declared'}`)
    chain.rules.push(parseRule(m[2]!))
  }
  return tables
}

/** Flags that belong to no module. */
const plain: Readonly<Record<string, string>> = {
  '-s': '-s',
  '--source': '-s',
  '-d': '-d',
  '--destination': '-d',
  '-i': '-i',
  '--in-interface': '-i',
  '-o': '-o',
  '--out-interface': '-o',
  '-p': '-p',
  '--protocol': '-p',
  '-f': '-f',
}

/** One rule without its `-A CHAIN`. */
export function parseRule(text: string): Rule {
  const words = tokens(text)
  const matches: { module: string; options: Option[] }[] = []
  const targetOptions: Option[] = []
  let target: string | undefined
  let goto = false
  let not = false
  for (let i = 0; i < words.length;) {
    const word = words[i++]!
    if (word === '!') {
      not = true
      continue
    }
    const values: string[] = []
    // Nothing that iptables prints as a value begins with a dash or is an exclamation mark.
    while (i < words.length && !words[i]!.startsWith('-') && words[i] !== '!') values.push(words[i++]!)
    if (word === '-m' || word === '--match') matches.push({ module: values[0]!, options: [] })
    else if (word === '-j' || word === '-g' || word === '--jump' || word === '--goto') {
      target = values[0]
      goto = word === '-g' || word === '--goto'
    } else if (Object.hasOwn(plain, word)) matches.push({ module: '', options: [{ name: plain[word]!, not, values }] })
    else if (target !== undefined) targetOptions.push({ name: word, not, values })
    else if (matches.at(-1) === undefined || matches.at(-1)!.module === '') throw new Error(`"${word}" in "${text}" belongs to no match`)
    else matches.at(-1)!.options.push({ name: word, not, values })
    not = false
  }
  return { text, matches, target, goto, targetOptions }
}

/** The words of a line; double quotes hold words together. */
function tokens(text: string): string[] {
  const out: string[] = []
  for (const m of text.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)) out.push(m[1] === undefined ? m[2]! : m[1].replaceAll(/\\(.)/g, '$1'))
  return out
}

/** An ipset as `ipset save` prints it. */
export interface SavedSet {
  readonly type: string
  readonly family: 4 | 6
  /** Elements without their timeouts. */
  readonly elements: ReadonlySet<string>
}

/** Reads what `ipset save` printed. */
export function parseSets(text: string): ReadonlyMap<string, SavedSet> {
  const sets = new Map<string, { type: string; family: 4 | 6; elements: Set<string> }>()
  for (const line of text.split('\n')) {
    const [verb, name, what] = line.split(' ')
    if (verb === 'create') sets.set(name!, { type: what!, family: line.includes('family inet6') ? 6 : 4, elements: new Set() })
    else if (verb === 'add') sets.get(name!)?.elements.add(what!)
  }
  return sets
}
