import { test } from 'tap'
import { authorizer } from './authorize.ts'
import { fixed, identity } from './fixed.ts'

const authorize = authorizer(undefined)
const every = ['get', 'list', 'watch', 'create', 'update', 'patch', 'delete', 'deletecollection', 'impersonate', 'bind', 'escalate']
const split = (r: string): { group: string; resource: string; subresource: string } => {
  const dot = r.indexOf('.')
  const [resource, subresource = ''] = (dot < 0 ? r : r.slice(0, dot)).split('/')
  return { group: dot < 0 ? '' : r.slice(dot + 1), resource: resource!, subresource }
}

for (const name of ['system:kube-proxy', 'system:dns', 'system:ingress', 'system:node:n1'])
  test(`${name} may do what the table says and not one verb more`, (t) => {
    const who = identity(name)!
    const user = { ...who, groups: [...who.groups, 'system:authenticated'] }
    const grants = [...(fixed[name] ?? []), ...who.groups.flatMap((g) => fixed[g] ?? [])]
    for (const resource of new Set(grants.flatMap((g) => g.resources))) {
      for (const verb of every) {
        const namespace = grants.find((g) => g.resources.includes(resource) && g.verbs.includes(verb))?.namespace ?? 'any'
        const granted = grants.some((g) => g.resources.includes(resource) && g.verbs.includes(verb))
        t.equal(authorize(user, verb, split(resource), namespace, 'n1').allowed, granted, `${verb} ${resource}`)
      }
    }
    for (const resource of ['secrets', 'roles.rbac.authorization.k8s.io', 'clusterroles.rbac.authorization.k8s.io', 'pods/exec'])
      if (!grants.some((g) => g.resources.includes(resource))) for (const verb of every) t.notOk(authorize(user, verb, split(resource), 'any', 'x').allowed, `no ${verb} ${resource}`)
    t.end()
  })

test('a node changes its own Node and no other; DNS writes slices in kube-system only', (t) => {
  const node = identity('system:node:n1')!
  t.ok(authorize(node, 'patch', { group: '', resource: 'nodes', subresource: 'status' }, undefined, 'n1').allowed)
  t.notOk(authorize(node, 'patch', { group: '', resource: 'nodes', subresource: 'status' }, undefined, 'n2').allowed)
  const dns = identity('system:dns')!
  t.ok(authorize(dns, 'create', { group: 'discovery.k8s.io', resource: 'endpointslices' }, 'kube-system', '').allowed)
  t.notOk(authorize(dns, 'create', { group: 'discovery.k8s.io', resource: 'endpointslices' }, 'default', '').allowed)
  t.end()
})

test('nobody in particular may ask for health and nothing else', (t) => {
  const nobody = { name: 'system:anonymous', groups: ['system:unauthenticated'] }
  for (const path of ['/healthz', '/livez', '/readyz', '/version']) t.ok(authorize(nobody, 'get', { path }, undefined, '').allowed, path)
  for (const path of ['/metrics', '/api', '/apis', '/openapi/v3']) t.notOk(authorize(nobody, 'get', { path }, undefined, '').allowed, path)
  for (const verb of every) t.notOk(authorize(nobody, verb, { group: '', resource: 'services' }, 'default', '').allowed)
  t.end()
})

test('an administrator may do everything, and an unknown identity is none', (t) => {
  t.ok(authorize(identity('admin')!, 'delete', { group: '', resource: 'nodes' }, undefined, 'x').allowed)
  t.equal(identity('system:nobody'), undefined)
  t.equal(identity('system:node:'), undefined)
  t.end()
})
