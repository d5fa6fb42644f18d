import type { Step, Tools } from '../http1/exchange.ts'
import type { Upstream } from '../table.ts'
import type { Feature } from './feature.ts'

interface Errors {
  readonly use: 'errors'
  readonly statuses: readonly number[]
  readonly from: Upstream
  readonly namespace: string
  readonly ingress: string
}

/** Error pages of another service. */
export const errors: Feature = {
  name: 'errors',
  keys: {
    'custom-http-errors': { help: 'statuses of the endpoint, separated by commas, whose answers come from default-backend instead' },
    'default-backend': { help: 'Service (NAME or NAME:PORT, same namespace) that makes those answers', support: 'differs', note: 'it does not take over when there are no endpoints: that is 503' },
    'disable-proxy-intercept-errors': { help: 'leaves answers of the endpoint alone', default: 'false' },
  },
  read(a, _draft, context) {
    const list = a.list('custom-http-errors')
    const service = a.text('default-backend')
    if (list === undefined || a.flag('disable-proxy-intercept-errors') === true) return undefined
    const statuses = list.map(Number).filter((n) => {
      if (Number.isInteger(n) && n >= 300 && n <= 599) return true
      a.problem('custom-http-errors', `"${n}" is no status from 300 to 599`)
      return false
    })
    if (service === undefined) {
      a.problem('custom-http-errors', 'needs default-backend')
      return undefined
    }
    const [name = '', port] = service.split(':')
    const from = context.upstream(a.namespace, name, port === undefined ? undefined : /^\d+$/.test(port) ? Number(port) : port)
    if (typeof from === 'string') {
      a.problem('default-backend', from)
      return undefined
    }
    return { use: 'errors', statuses, from, namespace: a.namespace, ingress: a.ingress.metadata.name } satisfies Errors
  },
  step(policy: Errors, tools: Tools): Step {
    return {
      response(x, response) {
        if (!policy.statuses.includes(response.status)) return undefined
        const n = policy.from.endpoints.length
        if (n === 0) return undefined
        const { status } = response
        const endpoint = policy.from.endpoints[Math.floor(tools.random() * n)]!
        const { name } = policy.from
        return tools
          .ask({
            url: `http://${endpoint.key}/`,
            method: 'GET',
            timeout: 5000,
            headers: [
              ['X-Code', String(status)],
              ['X-Format', response.header('content-type') ?? 'text/html'],
              ['X-Original-URI', x.path + x.query],
              ['X-Namespace', policy.namespace],
              ['X-Ingress-Name', policy.ingress],
              ['X-Service-Name', name.slice(name.indexOf('/') + 1, name.lastIndexOf(':'))],
              ['X-Request-ID', x.requestId],
            ],
          })
          .then(
            (page) => ({
              status: page.status >= 200 && page.status < 300 ? status : page.status,
              headers: page.headers.filter(([k]) => /^(content-type|cache-control|retry-after|set-cookie|location)$/i.test(k)),
              body: page.body,
              reason: 'custom-http-errors',
            }),
            // A page that cannot be had must not turn a refusal into a permission.
            () => ({ status, reason: 'custom-http-errors: the page cannot be had' }),
          )
      },
    }
  },
}
