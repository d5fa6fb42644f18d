import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { explainError } from '../lib/log.ts'
import { sleep } from '../lib/lifecycle.ts'
import { command, type Context } from '../lib/options.ts'
import { launcher, projectRoot } from './launcher.ts'
import { readRecord, statePaths } from './state.ts'
import { topology } from './topology.ts'
import type { Up } from './lifeline.ts'
import { up } from './up.ts'

const url = 'http://hello.demo.svc.cluster.local'
/** What should be true soon may take this long (ms) on a loaded machine. */
const patience = 20_000

/** `switchyard lab demo`: a tour in six steps; ends well only if every step did what it says. */
export const demoCommand = command({
  name: 'demo',
  summary: 'Shows everything working, step by step, in a lab of its own.',
  flags: {
    nodes: { type: 'number', help: 'how many nodes', default: 3 },
    sockets: { type: 'string', help: 'what carries bytes in the parts', oneOf: ['auto', 'epoll', 'node'], default: 'auto' },
  },
  run: async ({ values }, context) => {
    const tour = new Tour(context)
    const name = readRecord(statePaths('default')) === undefined ? 'default' : 'demo'
    const began = performance.now()
    let lab: Up | undefined
    const scratch = mkdtempSync(join(tmpdir(), 'switchyard-demo-'))
    try {
      lab = await firstStep(tour, name, values.nodes, values.sockets)
      const steps = [theService, byName, everyMode, theIngress, aPodIsKilled]
      for (const step of steps) await step(tour, { lab, name, scratch })
      tour.say(`\n${tour.good('All six steps did what they say')}, in ${seconds(performance.now() - began)}. The lab is taken down.`)
      return 0
    } catch (error) {
      tour.say(`\n${tour.bad('✗')} ${explainError(error)}`)
      tour.say(
        context.signal.aborted ? 'The lab is taken down.' : `The lab is taken down. Its parts wrote their logs to ${lab?.paths.logs ?? 'nowhere'}; "switchyard lab up" brings up one that stays.`,
      )
      return 1
    } finally {
      rmSync(scratch, { recursive: true, force: true })
      await lab?.down()
    }
  },
})

interface Place {
  readonly lab: Up
  readonly name: string
  readonly scratch: string
}

async function firstStep(tour: Tour, name: string, nodes: number, sockets: string): Promise<Up> {
  tour.title('A lab of several nodes, each a network of its own on this machine')
  tour.typed(`switchyard lab up --nodes ${nodes} --publish 8080:ingress${sockets === 'auto' ? '' : ` --sockets ${sockets}`}`)
  const began = performance.now()
  const t = topology({ name, nodes, sockets })
  const lab = await up(t, { publish: [{ host: '127.0.0.1', port: 8080, to: 'ingress', orAny: true }], progress: (what, ms) => tour.detail(`${seconds(ms).padStart(6)}  ${what}`), signal: tour.signal })
  tour.env = { KUBECONFIG: lab.paths.kubeconfig }
  tour.labFlag = name === 'default' ? [] : ['--lab', name]
  tour.did(`${nodes} nodes up in ${seconds(performance.now() - began)}: control plane and ingress on ${t.nodes[0]!.name}; proxy, DNS and a node agent on each`)
  await soon('every node is Ready', async () => {
    const list = (await tour.quietly('get', 'nodes', '-o', 'json')) as { items: { status?: { conditions?: { type: string; status: string }[] } }[] }
    return list.items.length === nodes && list.items.every((n) => n.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True'))
  })
  await tour.run('get', 'nodes')
  return lab
}

async function theService(tour: Tour): Promise<void> {
  tour.title('Objects from YAML: Namespace, Pods, Services, an Ingress and its class')
  const began = performance.now()
  await tour.run('apply', '-f', relative(process.cwd(), manifest()) || manifest())
  await soon('every Pod is ready', async () => (await podsOf(tour)).every((p) => p.ready))
  const took = performance.now() - began
  await tour.run('get', 'pods', '-n', 'demo', '-o', 'wide')
  tour.did(`all Pods ready ${seconds(took)} after apply began`)
}

async function byName(tour: Tour): Promise<void> {
  const pods = await podsOf(tour)
  const client = pods.find((p) => p.name === 'client')
  tour.title(`The Service by its DNS name, from a Pod on ${client?.node ?? 'another node'}`)
  const nodes = new Set((await answers(tour, true)).map((a) => a.split(' on ')[1]))
  const needed = Math.min(2, new Set(pods.filter((p) => p.name.startsWith('hello')).map((p) => p.node)).size)
  if (nodes.size < needed) throw new Error(`expected answers from ${needed} nodes, got ${[...nodes].join(', ')}`)
  tour.did(`answers from different Pods on ${nodes.size} nodes`)
}

async function everyMode(tour: Tour): Promise<void> {
  tour.title('The same Service under each proxy mode')
  const able: string[] = []
  for (const mode of ['userspace', 'iptables', 'ipvs', 'nftables']) {
    const began = performance.now()
    try {
      await tour.run('lab', ['mode', ...tour.labFlag], mode)
    } catch (error) {
      const why = /(?:cannot work here|is not in this build)[^\n]*/.exec(explainError(error))?.[0]
      if (why === undefined) throw error
      tour.skipped(`${mode}: ${why.replace(/^cannot work here: /, '').replace(/^is not in this build.*/, 'not in this build')}`)
      continue
    }
    const changed = performance.now() - began
    const got = await answers(tour, false)
    const counts = new Map<string, number>()
    for (const a of got) counts.set(a, (counts.get(a) ?? 0) + 1)
    if (counts.size < 2) throw new Error(`in mode ${mode} all answers came from one Pod: ${got[0]}`)
    tour.did(
      `${mode}: ${[...counts]
        .toSorted()
        .map(([a, n]) => `${n} × ${a.replace('hello from ', '')}`)
        .join(', ')} (changed in ${seconds(changed)})`,
    )
    able.push(mode)
  }
  if (able.length < 2) throw new Error(`only ${able.join(', ')} could run`)
  // The rest of the tour under the mode that most clusters run.
  await tour.quietlyRun('lab', ['mode', ...tour.labFlag], 'iptables')
}

async function theIngress(tour: Tour, { lab, scratch }: Place): Promise<void> {
  tour.title('The Ingress, by host and path, from outside the lab')
  const port = lab.record.published[0]!.port
  const get = async (host: string, path: string): Promise<{ code: number; body: string }> => ask(port, host, path)
  await soon('the Ingress answers', async () => (await get('hello.example.com', '/')).code === 200)
  for (const [host, path, code, fits] of [
    ['hello.example.com', '/', 200, /^hello from hello-[12]/],
    ['hello.example.com', '/second', 200, /^hello from hello-2/],
    ['nobody.example.com', '/', 404, /./],
  ] as const) {
    tour.typed(`curl -H 'Host: ${host}' http://127.0.0.1:${port}${path}`)
    const answer = await get(host, path)
    tour.detail(`${answer.code} ${answer.body.trim().split('\n')[0]}`)
    if (answer.code !== code || !fits.test(answer.body)) throw new Error(`expected ${code} and ${fits} from http://${host}${path}, got ${answer.code} ${answer.body}`)
  }
  const edited = join(scratch, 'hello.yaml')
  const text = readFileSync(manifest(), 'utf8')
  const added = `    - host: again.example.com
      http:
        paths:
          - path: /
            pathType: Prefix
            backend: { service: { name: second, port: { name: http } } }
`
  writeFileSync(edited, `${text.trimEnd()}\n${added}`)
  tour.say('  The YAML gets one more host:')
  for (const line of added.trimEnd().split('\n')) tour.say(tour.green(`  + ${line}`))
  const before = await get('again.example.com', '/')
  if (before.code !== 404) throw new Error(`again.example.com answered ${before.code} before it was applied`)
  const began = performance.now()
  const applied = tour.run('apply', '-f', edited).then(() => performance.now() - began)
  let first = 0
  const polling = soon('the new host answers', async () => (await get('again.example.com', '/')).code === 200, 5).then(() => (first = performance.now() - began))
  const [took] = await Promise.all([applied, polling])
  const answer = await get('again.example.com', '/')
  tour.typed(`curl -H 'Host: again.example.com' http://127.0.0.1:${port}/`)
  tour.detail(`${answer.code} ${answer.body.trim()}`)
  tour.did(`the new route answered ${Math.round(first)} ms after "apply" was typed (apply itself took ${Math.round(took)} ms)`)
}

async function aPodIsKilled(tour: Tour, { lab }: Place): Promise<void> {
  tour.title('A Pod is killed: its endpoint goes, requests go on')
  const count = 60
  const port = lab.record.published[0]!.port
  const loop = `i=0; while [ $i -lt ${count} ]; do curl -s -m 3 ${url} || echo FAILED; i=$((i+1)); sleep 0.05; done`
  tour.typed(`switchyard lab exec client -- sh -c '${loop}' &`)
  let heard = ''
  const requests = tour.listen((text) => (heard += text), 'lab', ['exec', ...tour.labFlag], 'client', '--', 'sh', '-c', loop)
  // Its failure is told below, where it is waited for.
  requests.catch(() => {})
  const through: Promise<number>[] = []
  const ended = new AbortController()
  const knocking = (async () => {
    while (!ended.signal.aborted) {
      through.push(
        ask(port, 'hello.example.com', '/')
          .then((a) => a.code)
          .catch(() => 0),
      )
      await sleep(50, ended.signal)
    }
  })()
  await soon('both Pods answer', async () => heard.includes('hello-1') && heard.includes('hello-2') && through.length > 0, 20)
  await tour.run('delete', 'pod', 'hello-1', '-n', 'demo')
  await soon('the endpoint is gone', async () => {
    const list = (await tour.quietly('get', 'endpointslices', '-n', 'demo', '-l', 'kubernetes.io/service-name=hello', '-o', 'json')) as { items: { endpoints?: { targetRef?: { name?: string } }[] }[] }
    return list.items.length > 0 && list.items.every((s) => (s.endpoints ?? []).every((e) => e.targetRef?.name !== 'hello-1'))
  })
  await tour.run('get', 'endpointslices', '-n', 'demo', '-l', 'kubernetes.io/service-name=hello')
  const lines = (await requests).trim().split('\n')
  ended.abort()
  await knocking
  const codes = await Promise.all(through)
  const failed = lines.filter((l) => !l.startsWith('hello from')).length
  const by = (pod: string): number => lines.filter((l) => l.includes(pod)).length
  tour.detail(`${lines.length} requests to the Service: ${by('hello-1')} × hello-1, then ${by('hello-2')} × hello-2 in all, ${failed} failed`)
  tour.detail(`${codes.length} requests through the Ingress: ${codes.filter((c) => c !== 200).length} failed`)
  if (lines.length !== count || failed > 0) throw new Error(`${failed} of ${lines.length} requests to the Service failed`)
  if (codes.some((c) => c !== 200)) throw new Error(`${codes.filter((c) => c !== 200).length} of ${codes.length} requests through the Ingress failed: ${[...new Set(codes)].join(', ')}`)
  if (!lines.at(-1)!.includes('hello-2')) throw new Error(`the last answer came from the Pod that was killed: ${lines.at(-1)}`)
  tour.did('no request failed')
}

/** Asks the Service until both Pods have answered; a fair choice may well fall on one of two ten times. */
async function answers(tour: Tour, show: boolean): Promise<readonly string[]> {
  const loop = `for i in 1 2 3 4 5 6 7 8; do curl -sS -m 5 ${url} || exit; done`
  const all: string[] = []
  for (let tries = 0; tries < 6; tries++) {
    const text = await (show && tries === 0
      ? tour.run('lab', ['exec', ...tour.labFlag], 'client', '--', 'sh', '-c', loop)
      : tour.output('lab', ['exec', ...tour.labFlag], 'client', '--', 'sh', '-c', loop))
    all.push(...text.trim().split('\n'))
    if (new Set(all).size > 1) break
  }
  const strange = all.find((line) => !line.startsWith('hello from '))
  if (strange !== undefined) throw new Error(`the Service answered "${strange}"`)
  return all
}

async function podsOf(tour: Tour): Promise<readonly { readonly name: string; readonly node: string; readonly ready: boolean }[]> {
  const list = (await tour.quietly('get', 'pods', '-n', 'demo', '-o', 'json')) as {
    items: { metadata: { name: string }; spec: { nodeName?: string }; status?: { conditions?: { type: string; status: string }[] } }[]
  }
  return list.items.map((p) => ({ name: p.metadata.name, node: p.spec.nodeName ?? '', ready: p.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') === true }))
}

function manifest(): string {
  return join(projectRoot, 'lab', 'manifests', 'hello.yaml')
}

async function soon(what: string, claim: () => Promise<boolean | undefined>, every = 100): Promise<void> {
  let last: unknown
  for (const until = performance.now() + patience; performance.now() < until;) {
    try {
      if ((await claim()) === true) return
      last = undefined
    } catch (error) {
      last = error
    }
    await sleep(every)
  }
  throw new Error(`${what}: not within ${patience / 1000} s`, { cause: last })
}

function ask(port: number, host: string, path: string): Promise<{ readonly code: number; readonly body: string }> {
  return new Promise((resolve, reject) => {
    const asked = request({ host: '127.0.0.1', port, path, headers: { host }, agent: false, timeout: 5000 }, (answer) => {
      let body = ''
      answer.setEncoding('utf8').on('data', (text: string) => (body += text))
      answer.on('end', () => resolve({ code: answer.statusCode ?? 0, body }))
      answer.on('error', reject)
    })
    asked.on('timeout', () => asked.destroy(new Error('no answer within 5 s')))
    asked.on('error', reject)
    asked.end()
  })
}

/** Shows a tour: titles, commands as a user would type them, and what came back. */
class Tour {
  readonly signal: AbortSignal
  env: Readonly<Record<string, string>> = {}
  labFlag: readonly string[] = []
  readonly #context: Context
  readonly #colours = process.stdout.isTTY && process.env.NO_COLOR === undefined
  #step = 0

  constructor(context: Context) {
    this.#context = context
    this.signal = context.signal
  }

  say(text: string): void {
    this.#context.out(`${text}\n`)
  }

  title(text: string): void {
    this.say(`\n${this.#paint('1', `${++this.#step}. ${text}`)}`)
  }

  typed(text: string): void {
    this.say(`  ${this.#paint('36', `$ ${text}`)}`)
  }

  detail(text: string): void {
    for (const line of text.trimEnd().split('\n')) this.say(`    ${line}`)
  }

  did(text: string): void {
    this.say(`  ${this.good('✓')} ${text}`)
  }

  skipped(text: string): void {
    this.say(`  ${this.#paint('33', '–')} ${text}`)
  }

  /** Runs `switchyard` with these words, showing the command and what it says. Lists of words are typed, but not shown when they only name the lab. */
  async run(...words: readonly (string | readonly string[])[]): Promise<string> {
    this.typed(['switchyard', ...words.flat().map(quoted)].join(' '))
    const text = await this.output(...words)
    this.detail(text)
    return text
  }

  async quietlyRun(...words: readonly (string | readonly string[])[]): Promise<void> {
    await this.output(...words)
  }

  /** The JSON that `switchyard` prints. */
  async quietly(...words: readonly string[]): Promise<unknown> {
    return JSON.parse(await this.output(...words))
  }

  output(...words: readonly (string | readonly string[])[]): Promise<string> {
    return this.listen(() => {}, ...words)
  }

  /** What it prints, told piece by piece too. */
  listen(heard: (text: string) => void, ...words: readonly (string | readonly string[])[]): Promise<string> {
    return new Promise((resolve, reject) => {
      const child = execFile(launcher, words.flat(), { env: { ...process.env, ...this.env }, signal: this.signal, maxBuffer: 16 << 20 }, (error, stdout, stderr) => {
        if (error === null) resolve(stdout)
        else reject(new Error(`switchyard ${words.flat().map(quoted).join(' ')} failed: ${(stderr.trim() || stdout.trim() || error.message).split('\n').slice(-4).join('\n')}`))
      })
      child.stdout!.on('data', heard)
    })
  }

  good(text: string): string {
    return this.#paint('32', text)
  }

  bad(text: string): string {
    return this.#paint('31', text)
  }

  green(text: string): string {
    return this.#paint('32', text)
  }

  #paint(code: string, text: string): string {
    return this.#colours ? `\u001b[${code}m${text}\u001b[0m` : text
  }
}

function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word}'`
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`
}
