import { loadCredentials } from '../kube/credentials.ts'
import { connect } from '../kube/client.ts'
import type { ConfigMap, EndpointSlice, Ingress, IngressClass, KubeObject, Secret, Service } from '../kube/objects.ts'
import { configmaps, endpointslices, ingressclasses, ingresses, keyOf, secrets, services } from '../kube/resources.ts'
import { MemoryDriver } from '../lib/sockets/memory/driver.ts'
import type { Driver, Protocol, Wire } from '../lib/sockets/seam.ts'
import { command as makeCommand, UsageError } from '../lib/options.ts'
import { middleware, settingsOf } from './annotations/list.ts'
import { readObjects } from './check.ts'
import { Compiler, controllerName, type Compiled, type Objects } from './compile.ts'
import { Server } from './http1/server.ts'
import { hostRoutes, prefixes, regexOf } from './match.ts'
import type { Route, RouteTable } from './table.ts'
import { serviceOf } from './watching.ts'

/** A request to be explained. */
export interface Question {
  readonly method: string
  readonly secure: boolean
  /** With port, if there is one. */
  readonly host: string
  /** Path and query. */
  readonly target: string
  readonly headers: readonly (readonly [name: string, value: string])[]
  readonly client: string
}

/** What becomes of a request, and why. This is the JSON that `-o json` prints; fields are only ever added. */
export interface Explanation {
  readonly apiVersion: 'switchyard.dev/v1'
  readonly kind: 'RequestExplanation'
  readonly request: string
  readonly outcome: 'forwarded' | 'answered'
  /** Of our own answer; with `forwarded` the endpoint decides. */
  readonly status?: number
  readonly reason?: string
  readonly location?: string
  readonly ingress?: string
  readonly service?: string
  readonly rule?: { readonly host: string; readonly path: string; readonly type: string }
  /** What the request passes, in order. */
  readonly annotations?: readonly string[]
  /** Endpoints that may be asked. */
  readonly endpoints?: readonly string[]
  /** What the endpoint gets: request line and fields. */
  readonly sends?: readonly string[]
  /** How the host was found. */
  readonly hostRule?: string
  readonly considered: readonly { readonly ingress: string; readonly path: string; readonly type: string; readonly verdict: string }[]
}

/** Explains what a server with `table` does with a request: by letting one do it, on a network in memory where every endpoint answers 200. */
export async function explain(table: RouteTable, question: Question): Promise<Explanation> {
  const memory = new MemoryDriver({ auto: false })
  // Every endpoint is a plain one here, whatever it speaks in truth.
  const driver: Driver = {
    name: memory.name,
    get now() {
      return memory.now
    },
    arena: (size) => Buffer.alloc(size),
    listen: (at, accept, how) => memory.listen(at, accept, how),
    connect: (at, p, how = {}) => memory.connect(at, p, how.timeout === undefined ? {} : { timeout: how.timeout }),
    bind: (at, received, how) => memory.bind(at, received, how),
    every: (ms, f) => memory.every(ms, f),
    flush: () => {},
    splice: (x, y) => memory.splice(x, y),
    detach: () => undefined,
    close: () => memory.close(),
  }
  let finished: { status: number; reason: string; route: Route; endpoint: string; path: string } | undefined
  const asked: string[] = []
  const server = new Server({
    driver,
    middleware,
    trusts: () => true,
    http2: { take: (_wire, accept) => accept(), connect: (_key, at, _tls, p, timeout) => memory.connect(at, p, { timeout }) },
    finished: (x) => {
      finished = { status: x.status, reason: x.reason, route: x.route, endpoint: x.lastEndpoint, path: x.path }
    },
    ask: async ({ url }) => {
      asked.push(url)
      return { status: 200, headers: [], body: '' }
    },
  })
  const frontend = { table, secure: question.secure }
  await server.listen({ host: '10.255.255.1', port: question.secure ? 443 : 80 }, frontend)
  let sent = ''
  const endpointsOf = (r: Route): readonly string[] => r.upstream.endpoints.map((e) => e.key)
  for (const key of table.endpoints) {
    const colon = key.lastIndexOf(':')
    await driver.listen({ host: key.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(key.slice(colon + 1)) }, () =>
      once((text, wire) => {
        if (!text.includes('\r\n\r\n')) return
        sent = text
        say(wire, 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n')
      }),
    )
  }
  let heard = ''
  const client = once((text) => void (heard = text))
  const wire = driver.connect({ host: '10.255.255.1', port: question.secure ? 443 : 80 }, client)
  const fields = question.headers.map(([n, v]) => `${n}: ${v}\r\n`).join('')
  say(wire, `${question.method} ${question.target} HTTP/1.1\r\nHost: ${question.host}\r\nX-Forwarded-For: ${question.client}\r\n${fields}\r\n`)
  memory.settle()
  // Steps that ask elsewhere are promises.
  for (let i = 0; heard === '' && i < 20; i++) {
    await new Promise((resolve) => setImmediate(resolve))
    memory.settle()
  }
  server.close()
  if (finished === undefined) throw new Error('the request did not come to an end')
  const { status, reason, route, path } = finished
  const host = question.host.toLowerCase().replace(/:\d*$/, '').replace(/\.$/, '')
  const found = hostRoutes(table, host)
  const considered = (found?.routes ?? []).map((r) => ({ ingress: r.owner, path: r.path, type: r.kind, verdict: r === route ? 'chosen' : verdict(r, path, found!.routes, route) }))
  const location = /\r\nlocation: (.*)\r\n/i.exec(heard)?.[1]
  const forwarded = sent !== ''
  return {
    apiVersion: 'switchyard.dev/v1',
    kind: 'RequestExplanation',
    request: `${question.method} ${question.secure ? 'https' : 'http'}://${question.host}${question.target}`,
    outcome: forwarded ? 'forwarded' : 'answered',
    ...(forwarded ? {} : { status }),
    ...(reason === '' ? {} : { reason }),
    ...(location === undefined ? {} : { location }),
    ...(route.owner === ''
      ? {}
      : {
          ingress: route.owner,
          service: route.upstream.name,
          rule: { host: route.host, path: route.path, type: route.kind },
          annotations: route.policies.map((p) => p.use),
          endpoints: endpointsOf(route),
        }),
    ...(forwarded ? { sends: sent.split('\r\n').filter((l) => l !== '' && !l.startsWith('X-Request-ID:')) } : {}),
    hostRule: found === undefined ? 'no rule has this host' : found.host === host ? 'exact host' : found.host === '' ? 'rules without a host' : `wildcard ${found.host}`,
    considered,
  }
}

function verdict(r: Route, path: string, all: readonly Route[], chosen: Route): string {
  const fits = r.kind === 'exact' ? r.path === path : r.kind === 'prefix' ? prefixes(r.path, path) : regexOf(r.path).test(path)
  if (!fits) return r.kind === 'exact' ? 'the path is another' : r.kind === 'prefix' ? 'the path does not begin with its elements' : 'the pattern does not match'
  return all.indexOf(r) > all.indexOf(chosen) ? (r.path.length === chosen.path.length ? 'fits, but Exact goes first' : 'fits, but a longer path goes first') : 'fits'
}

function once(heard: (text: string, wire: Wire) => void): Protocol {
  let wire: Wire
  let text = ''
  return {
    opened: (w) => void (wire = w),
    data: (b, from, to) => {
      text += b.toString('latin1', from, to)
      heard(text, wire)
    },
    drain: () => {},
    eof: () => {},
    closed: () => {},
  }
}

function say(wire: Wire, text: string): void {
  const b = Buffer.from(text, 'latin1')
  wire.write(b, 0, b.length)
}

/** `switchyard explain request METHOD URL`, also `switchyard ingress explain METHOD URL`. */
export const command = makeCommand({
  name: 'request',
  summary: 'Explains which rule, annotations and endpoints would serve a request, and why not others.',
  usage: 'METHOD URL',
  flags: {
    kubeconfig: { type: 'string', value: 'FILE', help: 'how to reach the cluster' },
    file: { type: 'list', short: 'f', value: 'FILE', help: 'objects of files instead of the cluster’s' },
    class: { type: 'list', value: 'NAME', help: 'only these IngressClasses' },
    'controller-class': { type: 'string', value: 'NAME', default: controllerName, help: 'IngressClasses whose spec.controller is this' },
    header: { type: 'string', short: 'H', value: 'NAME: VALUE', help: 'a field of the request' },
    client: { type: 'string', value: 'ADDR', default: '192.0.2.1', help: 'address of the client' },
    output: { type: 'string', short: 'o', oneOf: ['text', 'json'], default: 'text', help: 'form of the answer' },
  },
  run: async ({ values, positionals }, context) => {
    const [method, text] = positionals
    if (method === undefined || text === undefined) throw new UsageError('expected METHOD and URL, such as GET https://host/path')
    const m = /^(https?):\/\/([^/?#]+)(.*)$/.exec(text)
    if (m === null) throw new UsageError(`"${text}" is no http or https URL`)
    const objects = values.file.length > 0 ? sort(values.file.flatMap(readObjects).map((f) => f.object)) : await read(values.kubeconfig, context.signal)
    const header = values.header === undefined ? [] : [[values.header.slice(0, values.header.indexOf(':')), values.header.slice(values.header.indexOf(':') + 1).trim()] as const]
    const compiled: Compiled = new Compiler({
      controllers: [values['controller-class']],
      classes: values.class,
      defaultBackend: undefined,
      defaultCertificate: undefined,
      settings: settingsOf,
    }).compile(objects)
    const said = await explain(compiled.table, {
      method,
      secure: m[1] === 'https',
      host: m[2]!,
      target: m[3] === '' ? '/' : m[3]!.startsWith('?') ? `/${m[3]}` : m[3]!,
      headers: header,
      client: values.client,
    })
    if (values.output === 'json') context.out(`${JSON.stringify(said, null, 2)}\n`)
    else
      context.out(
        print(
          said,
          compiled.problems.filter((p) => `${p.ingress.metadata.namespace}/${p.ingress.metadata.name}` === said.ingress).map((p) => p.message),
        ),
      )
  },
})

function print(e: Explanation, problems: readonly string[]): string {
  const out = [e.request]
  out.push(
    e.outcome === 'forwarded'
      ? `is forwarded to ${e.service} (${e.endpoints!.length} endpoints: ${e.endpoints!.slice(0, 8).join(', ')})`
      : `is answered ${e.status}${e.reason === undefined ? '' : `: ${e.reason}`}${e.location === undefined ? '' : ` → ${e.location}`}`,
  )
  out.push(`host: ${e.hostRule}`)
  if (e.rule !== undefined) out.push(`rule: ${e.rule.type} ${e.rule.host === '' ? 'any host' : e.rule.host}${e.rule.path} of Ingress ${e.ingress}`)
  if (e.annotations !== undefined && e.annotations.length > 0) out.push(`passes: ${e.annotations.join(', ')}`)
  for (const c of e.considered) if (c.verdict !== 'chosen') out.push(`not ${c.type} ${c.path} of ${c.ingress}: ${c.verdict}`)
  for (const p of problems) out.push(`beware: ${p}`)
  if (e.sends !== undefined) out.push('the endpoint gets:', ...e.sends.map((l) => `  ${l}`))
  return `${out.join('\n')}\n`
}

async function read(kubeconfig: string | undefined, signal: AbortSignal): Promise<Objects> {
  const client = connect(await loadCredentials(kubeconfig), { userAgent: 'switchyard-explain' })
  const all: KubeObject[] = []
  for (const resource of [ingresses, ingressclasses, services, endpointslices, secrets, configmaps]) {
    for (const o of (await client.list<KubeObject>(resource as never, { signal })).items) all.push({ ...o, kind: resource.kind })
  }
  client.close()
  return sort(all)
}

/** Objects of files or lists as the compiler reads them. */
export function sort(list: readonly KubeObject[]): Objects {
  const namespaced = list.map((o) => (o.kind === 'IngressClass' ? o : { ...o, metadata: { namespace: 'default', ...o.metadata } }))
  const of = <T extends KubeObject>(kind: string): Map<string, T> => new Map(namespaced.filter((o) => o.kind === kind).map((o) => [keyOf(o), o as unknown as T]))
  const slices = new Map<string, EndpointSlice[]>()
  for (const s of of<EndpointSlice>('EndpointSlice').values()) {
    const key = serviceOf(s)
    if (key !== undefined) slices.set(key, [...(slices.get(key) ?? []), s])
  }
  return {
    ingresses: of<Ingress>('Ingress'),
    classes: of<IngressClass>('IngressClass'),
    services: of<Service>('Service'),
    secrets: of<Secret>('Secret'),
    slices,
    configMaps: of<ConfigMap>('ConfigMap'),
  }
}

export { command as request }
