import { randomUUID, X509Certificate } from 'node:crypto'
import { request as httpsRequest } from 'node:https'
import type { Json } from '../kinds/decode.ts'
import { FieldErrors } from '../kinds/invalid.ts'
import type { Kind } from '../kinds/kind.ts'
import { nodes } from '../kinds/node.ts'
import { pods } from '../kinds/pod.ts'
import { secrets } from '../kinds/secret.ts'
import { message } from '../kinds/schema.ts'
import { selectorText } from '../kinds/workload.ts'
import { serviceaccounts } from '../kinds/serviceaccount.ts'
import type { Pair } from '../identity/ca.ts'
import type { Tokens } from '../identity/tokens.ts'
import { managedByUpdate } from './managed.ts'
import { stamp, type Call, type Rest } from './rest.ts'
import type { SubCall, SubHandler } from './server.ts'
import { badRequest, conflict, Failure, internal, invalid } from './status.ts'

/** What the subresources need besides the objects. */
export interface Helpers {
  readonly rest: Rest
  readonly tokens: Tokens
  readonly issuer: string
  readonly ca: string
  /** With this certificate the API server asks the agents. */
  readonly agentClient: () => Promise<Pair>
}

/** The paths below objects that do more than read and write them. */
export function subresources(h: Helpers): ReadonlyMap<string, SubHandler> {
  return new Map<string, SubHandler>([
    ['namespaces/finalize', finalize(h)],
    ['pods/binding', async (call) => call.answer(201, await bind(h.rest, call, await call.body('Binding', '', 'v1')))],
    ['pods/eviction', eviction(h)],
    ['pods/log', log(h)],
    ['serviceaccounts/token', token(h)],
    ['deployments/scale', scale(h)],
    ['replicasets/scale', scale(h)],
  ])
}

function finalize({ rest }: Helpers): SubHandler {
  return async (call) => {
    const o = await call.body('Namespace', '', 'v1')
    const name = o['metadata'].name ?? ''
    if (name !== call.name) throw badRequest(`the name of the object (${name}) does not match the name on the URL (${call.name})`)
    const entry = await rest.update(
      call,
      (before) => {
        const now: Json = structuredClone(before)
        if (o['metadata'].resourceVersion !== undefined) now['metadata'].resourceVersion = o['metadata'].resourceVersion
        now['spec'] = { ...now['spec'], finalizers: o['spec']?.finalizers }
        if (now['spec'].finalizers === undefined) delete now['spec'].finalizers
        return now
      },
      { retry: o['metadata'].resourceVersion === undefined, part: 'other' },
    )
    call.answer(200, { ...entry.object, kind: 'Namespace', apiVersion: 'v1' })
  }
}

/** A Pod put on a node, by `pods/NAME/binding` and, older, by `bindings`. */
export async function bind(rest: Rest, call: Call, b: Json): Promise<Json> {
  const { target } = b
  if ((target?.name ?? '') === '') {
    const errors = new FieldErrors()
    errors.required('target.name')
    throw invalid('', 'Binding', call.name, errors.causes)
  }
  if ((target.kind ?? '') !== '' && target.kind !== 'Node' && target.kind !== 'Minion')
    throw new Failure(500, '', `target.kind: Unsupported value: ${JSON.stringify(target.kind)}: supported values: "Node", "<empty>"`)
  await rest.update(
    call,
    (before) => {
      const now: Json = structuredClone(before)
      if (before['metadata'].deletionTimestamp !== undefined) throw conflict({ group: '', plural: 'pods/binding' }, call.name, `pod ${call.name} is being deleted, cannot be assigned to a host`)
      if ((before['spec'].nodeName ?? '') !== '')
        throw conflict({ group: '', plural: 'pods/binding' }, call.name, `pod ${call.name} is already assigned to node ${JSON.stringify(before['spec'].nodeName)}`)
      now['spec'].nodeName = target.name
      const at = stamp(rest.now)
      const conditions = ((now['status'].conditions ?? []) as Json[]).filter((c) => c['type'] !== 'PodScheduled')
      now['status'].conditions = [...conditions, { type: 'PodScheduled', status: 'True', lastProbeTime: null, lastTransitionTime: at }]
      return now
    },
    { retry: true, part: 'other' },
  )
  return { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success', code: 201 }
}

function eviction({ rest }: Helpers): SubHandler {
  return async (call) => {
    const e = await call.body('Eviction', 'policy', 'v1')
    if (e['metadata'].name !== undefined && e['metadata'].name !== call.name) throw badRequest('name in URL does not match name in Eviction object')
    rest.entry(pods, call.namespace, call.name)
    const options = e['deleteOptions'] ?? {}
    await rest.delete({ ...call, dryRun: call.dryRun || (options.dryRun ?? []).length > 0 }, options)
    call.answer(201, { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success', code: 201 })
  }
}

function token({ rest, tokens, issuer }: Helpers): SubHandler {
  return async (call) => {
    const account = rest.entry(serviceaccounts, call.namespace, call.name).object
    const asked = await call.body('TokenRequest', 'authentication.k8s.io', 'v1')
    const spec = asked['spec'] ?? {}
    const errors = new FieldErrors()
    const seconds: number = spec.expirationSeconds ?? 3600
    if (seconds < 600) errors.invalid('spec.expirationSeconds', seconds, 'may not specify a duration less than 10 minutes')
    if (seconds > 2 ** 32) errors.invalid('spec.expirationSeconds', seconds, 'may not specify a duration larger than 2^32 seconds')
    if (errors.causes.length > 0) throw invalid('authentication.k8s.io', 'TokenRequest', '', errors.causes)
    const audiences: string[] = (spec.audiences ?? []).length > 0 ? spec.audiences : [issuer]
    const meta = account['metadata']
    const bound = spec.boundObjectRef
    let pod: Json | undefined
    let node: Json | undefined
    let secret: Json | undefined
    if (bound !== undefined && bound !== null) {
      const find = (k: Kind, ns: string | undefined): Json => {
        const found = rest.entry(k, ns, bound.name).object
        if (bound.uid !== undefined && bound.uid !== found['metadata'].uid)
          throw conflict(k, bound.name, `the UID in the bound object reference (${bound.uid}) does not match the UID in record. The object might have been deleted and then recreated`)
        return found
      }
      if (bound.kind === 'Pod') {
        pod = find(pods, call.namespace)
        if (pod['spec'].nodeName !== undefined) node = rest.find(nodes, undefined, pod['spec'].nodeName)?.object
        if ((pod['spec'].serviceAccountName ?? 'default') !== call.name)
          throw badRequest(`cannot bind token for serviceaccount ${JSON.stringify(call.name)} to pod running with different serviceaccount name.`)
      } else if (bound.kind === 'Node') node = find(nodes, undefined)
      else if (bound.kind === 'Secret') secret = find(secrets, call.namespace)
      else throw badRequest(`cannot bind token to object of type ${bound.apiVersion ?? ''}, Kind=${bound.kind ?? ''}`)
    }
    const now = Math.floor(rest.now / 1000)
    const type = { group: 'authentication.k8s.io', version: 'v1', status: false, type: message('TokenRequest') }
    const fields = managedByUpdate(type, { ...asked, spec: { ...spec, audiences, expirationSeconds: seconds } }, undefined, call, rest.now)
    const named = (o: Json): { name: string; uid: string } => ({ name: o['metadata'].name, uid: o['metadata'].uid })
    const text = tokens.issue({
      aud: audiences,
      exp: now + seconds,
      iat: now,
      nbf: now,
      iss: issuer,
      jti: randomUUID(),
      'kubernetes.io': {
        namespace: meta.namespace,
        serviceaccount: named(account),
        ...(pod === undefined ? {} : { pod: named(pod) }),
        ...(node === undefined ? {} : { node: named(node) }),
        ...(secret === undefined ? {} : { secret: named(secret) }),
      },
      sub: `system:serviceaccount:${meta.namespace}:${meta.name}`,
    })
    call.answer(201, {
      kind: 'TokenRequest',
      apiVersion: 'authentication.k8s.io/v1',
      metadata: { name: meta.name, namespace: meta.namespace, creationTimestamp: stamp(rest.now), ...(fields.length === 0 ? {} : { managedFields: fields }) },
      spec: { audiences, expirationSeconds: seconds, boundObjectRef: bound ?? null },
      status: { token: text, expirationTimestamp: stamp((now + seconds) * 1000) },
    })
  }
}

async function podOf({ rest }: Helpers, call: Pick<SubCall, 'namespace' | 'name'>): Promise<Json> {
  return rest.entry(pods, call.namespace, call.name).object
}

const scaleKind: Pick<Kind, 'group' | 'version' | 'kind' | 'type'> = {
  group: 'autoscaling',
  version: 'v1',
  kind: 'Scale',
  get type() {
    return message('Scale')
  },
}

/** The Scale of a Deployment or ReplicaSet: how many there should be and are. */
function scale({ rest }: Helpers): SubHandler {
  const show = (o: Json): Json => {
    const { name, namespace, uid, resourceVersion, creationTimestamp } = o['metadata']
    const selector = selectorText(o['spec'].selector)
    return {
      kind: 'Scale',
      apiVersion: 'autoscaling/v1',
      metadata: { name, namespace, uid, resourceVersion, creationTimestamp },
      spec: o['spec'].replicas === 0 ? {} : { replicas: o['spec'].replicas },
      status: { replicas: o['status']?.replicas ?? 0, ...(selector === '' ? {} : { selector }) },
    }
  }
  return async (call) => {
    const current = rest.entry(call.kind, call.namespace, call.name)
    if (call.verb === 'get') {
      call.answer(200, show(current.object))
      return
    }
    const given = call.verb === 'update' ? await call.body('Scale', 'autoscaling', 'v1') : undefined
    const patch = call.verb === 'patch' ? await call.patch() : undefined
    const entry = await rest.update(
      call,
      (before) => {
        const wanted = given ?? rest.decodeAs(call, 'Scale', 'autoscaling', 'v1', scaleKind.type, patch!(show(before), scaleKind.type))
        if ((wanted['metadata'].name ?? call.name) !== call.name) throw badRequest(`the name of the object (${wanted['metadata'].name}) does not match the name on the URL (${call.name})`)
        const replicas: number = wanted['spec'].replicas ?? 0
        if (replicas < 0) {
          const errors = new FieldErrors()
          errors.invalid('spec.replicas', replicas, 'must be greater than or equal to 0')
          throw invalid('autoscaling', 'Scale', call.name, errors.causes)
        }
        const now: Json = structuredClone(before)
        now['spec'].replicas = replicas
        if (wanted['metadata'].resourceVersion !== undefined) now['metadata'].resourceVersion = wanted['metadata'].resourceVersion
        return now
      },
      { retry: given === undefined || given['metadata'].resourceVersion === undefined },
    )
    call.answer(200, show(entry.object))
  }
}

/** Where the agent of a Pod's node listens; refuses with Kubernetes' words when the Pod runs nowhere yet. */
export async function agentOf(h: Helpers, call: Pick<SubCall, 'namespace' | 'name'>, pod: Json): Promise<{ readonly host: string; readonly port: number }> {
  const name: string = pod['spec'].nodeName ?? ''
  if (name === '') throw badRequest(`pod ${call.name} does not have a host assigned`)
  const node = h.rest.find(nodes, undefined, name)?.object
  if (node === undefined) throw new Failure(404, 'NotFound', `nodes ${JSON.stringify(name)} not found`, { name, kind: 'nodes' })
  const addresses = (node['status'].addresses ?? []) as Json[]
  const host: string | undefined = (addresses.find((a) => a['type'] === 'InternalIP') ?? addresses[0])?.['address']
  if (host === undefined) throw new Failure(500, '', 'no preferred addresses found; known addresses: []')
  return { host, port: node['status'].daemonEndpoints?.kubeletEndpoint?.Port ?? 10_250 }
}

function log(h: Helpers): SubHandler {
  return async (call) => {
    const pod = await podOf(h, call)
    const containers = (pod['spec'].containers ?? []) as Json[]
    const all = [...containers, ...((pod['spec'].initContainers ?? []) as Json[])].map((c) => c['name'] as string)
    let container = call.query.get('container') ?? ''
    if (container === '') {
      if (containers.length > 1) throw badRequest(`a container name must be specified for pod ${call.name}, choose one of: [${containers.map((c) => c['name']).join(' ')}]`)
      container = containers[0]!['name']
    } else if (!all.includes(container)) throw badRequest(`container ${container} is not valid for pod ${call.name}`)
    const name: string = pod['spec'].nodeName ?? ''
    if (name === '') {
      send404(call)
      return
    }
    const { host, port } = await agentOf(h, call, pod)
    const query = new URLSearchParams(call.query)
    query.delete('container')
    const pair = await h.agentClient()
    await new Promise<void>((resolve, reject) => {
      const path = `/containerLogs/${encodeURIComponent(call.namespace ?? '')}/${encodeURIComponent(call.name)}/${encodeURIComponent(container)}${query.size > 0 ? `?${query}` : ''}`
      const out = httpsRequest({ host, port, path, cert: pair.certificate, key: pair.key, ca: h.ca, checkServerIdentity: (_name, certificate) => named(certificate.raw, name, host) }, (answer) => {
        if (answer.statusCode !== 200) {
          let text = ''
          answer.on('data', (part: Buffer) => (text += part.toString()))
          answer.on('end', () => reject(answer.statusCode === 400 || answer.statusCode === 404 ? badRequest(text.trim()) : internal(text.trim())))
          return
        }
        call.response.writeHead(200, { 'content-type': 'text/plain', 'cache-control': 'no-cache, private' })
        call.response.flushHeaders()
        answer.pipe(call.response)
        answer.on('end', resolve)
        answer.on('error', () => {
          call.response.destroy()
          resolve()
        })
      })
      call.response.on('close', () => {
        out.destroy()
        resolve()
      })
      out.on('error', (error) => reject(internal(`Get "https://${host}:${port}${path}": ${error.message}`)))
      out.end()
    })
  }
}

/** The agent's certificate must name the node or its address. */
export function named(raw: Buffer, node: string, host: string): Error | undefined {
  const c = new X509Certificate(raw)
  if (c.checkIP(host) !== undefined || c.checkHost(node) !== undefined || c.subject.split('\n').includes(`CN=system:node:${node}`)) return undefined
  return new Error(`the certificate of the agent does not name node ${node}`)
}

/** The log of a Pod that runs nowhere yet is empty. */
function send404(call: SubCall): void {
  call.response.writeHead(204, { 'cache-control': 'no-cache, private' })
  call.response.end()
}
