import { Agent, request, type IncomingMessage } from 'node:http'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { SqliteStore } from '../controlplane/store/sqlite.ts'
import { folder, start, type Running } from '../controlplane/testing/plane.ts'
import { sleep } from '../lib/lifecycle.ts'
import { ofRounds, type BenchContext, type Row } from './row.ts'

const configmaps = '/api/v1/namespaces/default/configmaps'

/** What an API server does for those who write, watch and wait for it. Clients are processes' neighbours here: they share its processors. */
export async function* rows(context: BenchContext): AsyncGenerator<Row> {
  const any = (...names: string[]): boolean => names.some((n) => context.wants(n))
  const names = {
    empty: 'ready after start, empty store',
    rss: 'memory when idle (RSS)',
    creates: 'durable creates, 64 writers',
    patches: 'PATCHes with ten watchers',
    p99: 'write p99 at 200 writes/s',
    told: 'answer to watcher p99 at 200 writes/s',
    deliveries: 'watch deliveries a second of CPU, 100 watchers',
    list: 'LIST of 10,000 Pods',
    slices: 'Pod ready to EndpointSlice event p99',
    full: 'ready with 100,000 objects after kill -9',
  }
  if (any(names.empty, names.rss)) {
    const ms: number[] = []
    let rss = 0
    for (let i = 0; i < 3; i++) {
      context.progress(`${names.empty}, ${i + 1} of 3`)
      const data = folder()
      const began = performance.now()
      const plane = await start(data)
      ms.push((performance.now() - began) / 1000)
      if (i === 2) {
        await sleep(3000)
        rss = Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${plane.process.pid}/status`, 'utf8'))?.[1] ?? 0) / 1024
      }
      await plane.stop()
    }
    yield ofRounds(names.empty, 's', ms, { bar: { of: 'figure', value: 1 } })
    yield { name: names.rss, ours: rss, unit: 'MB', bar: { of: 'figure', value: 120 } }
  }
  if (any(names.creates, names.patches, names.p99, names.told, names.deliveries, names.list)) {
    const plane = await start(folder(), ['--controllers=false'])
    const client = new Client(plane.url)
    try {
      // Warm: the first thousands run before the compiler has seen them.
      await many(2000, 64, (i) => client.ask('POST', configmaps, { metadata: { name: `w${i}` }, data: { v: '' } }))
      if (context.wants(names.creates)) {
        context.progress(names.creates)
        const perSecond = await rate(6000, 64, (i) => client.ask('POST', configmaps, { metadata: { name: `c${i}` }, data: { v: 'x'.repeat(200) } }))
        yield { name: names.creates, ours: perSecond, unit: '/s', bar: { of: 'figure', value: 1000, atLeast: true } }
      }
      if (context.wants(names.patches)) {
        context.progress(names.patches)
        const watchers = await Promise.all(Array.from({ length: 10 }, () => client.watch(configmaps, () => {})))
        const perSecond = await rate(6000, 32, (i) => client.ask('PATCH', `${configmaps}/w${i % 1000}`, { data: { v: String(i) } }))
        for (const w of watchers) w.destroy()
        yield { name: names.patches, ours: perSecond, unit: '/s', bar: { of: 'figure', value: 1000, atLeast: true } }
      }
      if (any(names.p99, names.told)) {
        context.progress(names.p99)
        const { writes, told } = await paced(client)
        yield { name: names.p99, ours: p99(writes), unit: 'ms', bar: { of: 'figure', value: 20 } }
        yield { name: names.told, ours: p99(told), unit: 'ms', bar: { of: 'figure', value: 10 } }
      }
      if (context.wants(names.deliveries)) {
        context.progress(names.deliveries)
        yield { name: names.deliveries, ours: await deliveries(client, plane), unit: '/s', bar: { of: 'figure', value: 50_000, atLeast: true } }
      }
      if (context.wants(names.list)) {
        context.progress(names.list)
        await many(10_000, 64, (i) => client.ask('POST', '/api/v1/namespaces/kube-public/pods', pod(`p${i}`)))
        const took: number[] = []
        for (let i = 0; i < 5; i++) {
          const began = performance.now()
          await client.ask('GET', '/api/v1/pods')
          took.push((performance.now() - began) / 1000)
        }
        yield ofRounds(names.list, 's', took, { bar: { of: 'figure', value: 0.5 } })
      }
    } finally {
      client.close()
      await plane.stop()
    }
  }
  if (context.wants(names.slices)) {
    context.progress(names.slices)
    yield { name: names.slices, ours: p99(await readyToSlice()), unit: 'ms', bar: { of: 'figure', value: 100 } }
  }
  if (context.wants(names.full)) {
    context.progress(names.full)
    yield { name: names.full, ours: await restart(), unit: 's', bar: { of: 'figure', value: 3 } }
  }
}

const pod = (name: string, labels = {}): object => ({
  metadata: { name, labels },
  spec: { nodeName: 'n', serviceAccountName: 'default', automountServiceAccountToken: false, containers: [{ name: 'c', image: 'x', ports: [{ containerPort: 80 }] }] },
})

/** 200 writes a second for five seconds: how long each took, and how long after its answer a watcher knew (ms). */
async function paced(client: Client): Promise<{ readonly writes: number[]; readonly told: number[] }> {
  const seen = new Map<string, number>()
  const answered = new Map<string, number>()
  const watcher = await client.watch(configmaps, (event) => seen.set(event.object.metadata.resourceVersion, performance.now()))
  const writes: number[] = []
  const pending: Promise<void>[] = []
  const began = performance.now()
  for (let i = 0; i < 1000; i++) {
    const due = began + i * 5
    if (performance.now() < due) await sleep(due - performance.now())
    const at = performance.now()
    pending.push(
      client.ask('PATCH', `${configmaps}/w${i % 500}`, { data: { v: `paced ${i}` } }).then((o) => {
        writes.push(performance.now() - at)
        answered.set(o.metadata.resourceVersion, performance.now())
      }),
    )
  }
  await Promise.all(pending)
  while ([...answered.keys()].some((v) => !seen.has(v))) await sleep(10)
  watcher.destroy()
  return { writes, told: [...answered].map(([v, at]) => Math.max(0, seen.get(v)! - at)) }
}

/** Events that a hundred watchers got for each second of the server's CPU. */
async function deliveries(client: Client, plane: Running): Promise<number> {
  let got = 0
  const watchers = await Promise.all(Array.from({ length: 100 }, () => client.watchRaw(configmaps, (lines) => (got += lines))))
  await sleep(500)
  got = 0
  const before = cpu(plane)
  await many(2000, 32, (i) => client.ask('PATCH', `${configmaps}/w${i % 1000}`, { data: { v: `d${i}` } }))
  while (got < 200_000) await sleep(10)
  const spent = cpu(plane) - before
  for (const w of watchers) w.destroy()
  return got / spent
}

/** Seconds of CPU that the control plane has used. */
function cpu(plane: Running): number {
  const fields = readFileSync(`/proc/${plane.process.pid}/stat`, 'utf8').split(') ')[1]!.split(' ')
  return (Number(fields[11]) + Number(fields[12])) / 100
}

async function readyToSlice(): Promise<number[]> {
  const plane = await start(folder())
  const client = new Client(plane.url)
  try {
    const ns = '/api/v1/namespaces/default'
    await client.ask('POST', '/api/v1/nodes', { metadata: { name: 'n' } })
    const took: number[] = []
    const ready = new Map<string, number>()
    await many(50, 1, async (i) => {
      await client.ask('POST', `${ns}/services`, { metadata: { name: `s${i}` }, spec: { selector: { app: `a${i}` }, ports: [{ port: 80 }] } })
      await client.ask('POST', `${ns}/pods`, pod(`p${i}`, { app: `a${i}` }))
    })
    const watcher = await client.watch('/apis/discovery.k8s.io/v1/namespaces/default/endpointslices', (event) => {
      for (const e of event.object.endpoints ?? []) {
        const at = ready.get(e.addresses[0])
        if (at === undefined || e.conditions.ready !== true) continue
        took.push(performance.now() - at)
        ready.delete(e.addresses[0])
      }
    })
    for (let i = 0; i < 50; i++) {
      const ip = `10.244.0.${i + 2}`
      ready.set(ip, performance.now())
      await client.ask('PATCH', `${ns}/pods/p${i}/status`, { status: { phase: 'Running', podIP: ip, podIPs: [{ ip }], conditions: [{ type: 'Ready', status: 'True' }] } })
      await sleep(40)
    }
    const deadline = performance.now() + 30_000
    while (ready.size > 0 && performance.now() < deadline) await sleep(10)
    if (ready.size > 0) throw new Error(`${ready.size} Pods became ready and no slice said so`)
    watcher.destroy()
    return took
  } finally {
    client.close()
    await plane.stop()
  }
}

/** Seconds from the start of a server to its ready line, over a store that a killed one left with 100,000 objects. */
async function restart(): Promise<number> {
  const data = folder()
  const first = await start(data, ['--controllers=false'])
  await first.stop()
  const store = new SqliteStore(join(data, 'store.db'))
  const at = new Date().toISOString().replace(/\.\d+/, '')
  await many(100_000, 256, async (i) => {
    const metadata = { name: `o${i}`, namespace: 'default', uid: `00000000-0000-4000-8000-${String(i).padStart(12, '0')}`, creationTimestamp: at, labels: { app: `a${i % 100}` } }
    await store.put(`/registry/configmaps/default/o${i}`, Buffer.from(JSON.stringify({ metadata, data: { v: 'x'.repeat(300) } })), 0)
  })
  await store.close()
  const second = await start(data, ['--controllers=false'])
  await second.stop('SIGKILL')
  const began = performance.now()
  const third = await start(data, ['--controllers=false'])
  const took = (performance.now() - began) / 1000
  await third.stop()
  return took
}

/** `n` calls, `width` at a time. */
async function many(n: number, width: number, call: (i: number) => Promise<unknown>): Promise<void> {
  let next = 0
  await Promise.all(
    Array.from({ length: width }, async () => {
      while (next < n) await call(next++)
    }),
  )
}

async function rate(n: number, width: number, call: (i: number) => Promise<unknown>): Promise<number> {
  const began = performance.now()
  await many(n, width, call)
  return n / ((performance.now() - began) / 1000)
}

const p99 = (list: readonly number[]): number => list.toSorted((a, b) => a - b)[Math.floor(list.length * 0.99)] ?? 0

/** As little of a client as can be: kept-alive connections, JSON. */
class Client {
  readonly #url: string
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 64 })

  constructor(url: string) {
    this.#url = url
  }

  ask(method: string, path: string, body?: object): Promise<any> {
    const type = method === 'PATCH' ? 'application/merge-patch+json' : 'application/json'
    return new Promise((resolve, reject) => {
      const out = request(`${this.#url}${path}`, { method, agent: this.#agent, headers: body === undefined ? {} : { 'content-type': type } }, (answer) => {
        const parts: Buffer[] = []
        answer.on('data', (part: Buffer) => parts.push(part))
        answer.on('end', () => {
          const text = Buffer.concat(parts).toString()
          if (answer.statusCode! >= 300) reject(new Error(`${method} ${path}: ${answer.statusCode} ${text.slice(0, 300)}`))
          else resolve(JSON.parse(text))
        })
      })
      out.on('error', reject)
      out.end(body === undefined ? undefined : JSON.stringify(body))
    })
  }

  watch(path: string, told: (event: any) => void): Promise<IncomingMessage> {
    let rest = ''
    return this.#stream(path, (part) => {
      const lines = (rest + part.toString()).split('\n')
      rest = lines.pop()!
      for (const line of lines) told(JSON.parse(line))
    })
  }

  /** Counts lines and reads nothing. */
  watchRaw(path: string, told: (lines: number) => void): Promise<IncomingMessage> {
    return this.#stream(path, (part) => {
      let lines = 0
      for (let at = part.indexOf(10); at >= 0; at = part.indexOf(10, at + 1)) lines++
      told(lines)
    })
  }

  #stream(path: string, data: (part: Buffer) => void): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const out = request(`${this.#url}${path}?watch=true`, { agent: false }, (answer) => {
        answer.on('data', data)
        answer.on('error', () => {})
        resolve(answer)
      })
      out.on('error', reject)
      out.end()
    })
  }

  close(): void {
    this.#agent.destroy()
  }
}
