// `npm run bench -- PART…`: measures and prints a table of ratios from one run on one machine.
import { existsSync, writeFileSync } from 'node:fs'
import { cpus, release } from 'node:os'
import { join } from 'node:path'
import { explainError } from '../lib/log.ts'
import { untilSignal } from '../lib/lifecycle.ts'
import { command, dispatch, UsageError } from '../lib/options.ts'
import { curves } from './curves.ts'
import type { BenchContext, Part, Row } from './row.ts'

const parts = ['lab', 'vm', 'sockets', 'proxy', 'ingress', 'dns', 'controlplane']

const bench = command({
  name: 'bench',
  summary: 'Measures a part and prints ratios, beside the peers that are installed or named.',
  usage: 'PART…',
  flags: {
    json: { type: 'string', value: 'FILE', help: 'the same rows as JSON' },
    strict: { type: 'boolean', help: 'exit status 1 when a bar does not hold or a peer is missing' },
    svg: { type: 'string', value: 'FILE', help: 'draw the curves of rows that are points of one' },
    peer: { type: 'list', value: 'NAME=PATH', help: 'a peer that is no Debian package: kube-proxy, coredns, kube-apiserver' },
    only: { type: 'string', value: 'WORDS', help: 'only rows whose name has these words' },
  },
  details: `Parts: ${parts.join(', ')}. Ratios are ours divided by the peer's: smaller is better unless the row's unit says otherwise.`,
  run: async ({ values, positionals }, context) => {
    const unknown = positionals.find((p) => !parts.includes(p))
    if (unknown !== undefined || positionals.length === 0) throw new UsageError(unknown === undefined ? `name a part: ${parts.join(', ')}` : `no part "${unknown}"; there are ${parts.join(', ')}`)
    const peers = new Map(
      values.peer.map((p) => {
        const at = p.indexOf('=')
        if (at < 1) throw new UsageError(`flag --peer: expected NAME=PATH, got "${p}"`)
        if (!existsSync(p.slice(at + 1))) throw new UsageError(`flag --peer: no file ${p.slice(at + 1)}`)
        return [p.slice(0, at), p.slice(at + 1)] as const
      }),
    )
    const missing: string[] = []
    const rows: Row[] = []
    const machine = `${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}, Linux ${release()}, Node ${process.versions.node}`
    context.out(`${machine}\n`)
    for (const name of positionals) {
      const file = join(import.meta.dirname, `${name}.ts`)
      if (!existsSync(file)) throw new UsageError(`nothing is measured for ${name} yet`)
      const part = (await import(file)) as Part
      const how: BenchContext = {
        peers,
        signal: context.signal,
        progress: (text) => context.err(process.stderr.isTTY ? `\r\x1b[K${text}` : `${text}\n`),
        wants: (row) => values.only === undefined || row.includes(values.only),
        missing: (peer) => void missing.push(peer),
      }
      for await (const row of part.rows(how)) {
        if (process.stderr.isTTY) context.err('\r\x1b[K')
        rows.push(row)
        context.out(line(row))
      }
    }
    for (const peer of missing) context.out(`not measured beside ${peer}: it is not installed\n`)
    if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify({ machine, at: new Date().toISOString(), rows, missing }, null, 2)}\n`)
    if (values.svg !== undefined) writeFileSync(values.svg, curves(rows))
    const short = rows.filter((r) => holds(r) === false)
    return values.strict && (short.length > 0 || missing.length > 0) ? 1 : 0
  },
})

function line(row: Row): string {
  const ratio = row.peer === undefined ? '' : `  ${row.peer.name} ${number(row.peer.value)}  ratio ${number(row.ours / row.peer.value)}`
  const verdict = holds(row)
  const spread = row.spread === undefined ? '' : ` [${number(row.spread[0])}–${number(row.spread[1])}]`
  const bar =
    row.bar === undefined ? '' : `  bar ${row.bar.atLeast === true ? '≥' : '≤'} ${number(row.bar.value)}${row.bar.of === 'ratio' ? ' ×' : ''}  ${verdict === true ? 'holds' : 'DOES NOT HOLD'}`
  return `${row.name.padEnd(58)} ${number(row.ours)}${spread} ${row.unit}${ratio}${bar}\n`
}

function holds(row: Row): boolean | undefined {
  if (row.bar === undefined || (row.bar.of === 'ratio' && row.peer === undefined)) return undefined
  const value = row.bar.of === 'ratio' ? row.ours / row.peer!.value : row.ours
  return row.bar.atLeast === true ? value >= row.bar.value : value <= row.bar.value
}

function number(n: number): string {
  return n === 0 ? '0' : Math.abs(n) >= 100 ? n.toFixed(0) : n.toPrecision(3)
}

try {
  process.exitCode = await dispatch(bench, process.argv.slice(2), { signal: untilSignal(), out: (t) => void process.stdout.write(t), err: (t) => void process.stderr.write(t) }, ['npm run bench --'])
} catch (error) {
  process.stderr.write(`bench: ${explainError(error)}\n`)
  process.exitCode = 1
}
