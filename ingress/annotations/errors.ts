import type { Exchange, Step, Tools } from '../http1/exchange.ts'
import type { Upstream } from '../table.ts'
import type { Feature } from './feature.ts'

interface Errors {
  readonly use: 'errors'
  readonly statuses: readonly number[]
  readonly from: Upstream
  /** It also takes over where there is no endpoint. */
  readonly alone: boolean
  readonly namespace: string
  readonly ingress: string
}

/** Error pages of another service. */
export const errors: Feature = {
  name: 'errors',
  keys: {
    'custom-http-errors': { help: 'statuses of the endpoint, separated by commas, whose answers come from default-backend instead' },
    'default-backend': {
      help: 'Service (NAME or NAME:PORT, same namespace) that makes those answers, and all answers where there is no endpoint; else the controller’s --default-backend-service makes them',
    },
    'disable-proxy-intercept-errors': { help: 'leaves answers of the endpoint alone', default: 'false' },
  },
  read(a, _draft, context) {
    const list = a.flag('disable-proxy-intercept-errors') === true ? undefined : a.list('custom-http-errors')
    const service = a.text('default-backend')
    if (list === undefined && service === undefined) return undefined
    const statuses = (list ?? []).map(Number).filter((n) => {
      if (Number.isInteger(n) && n >= 300 && n <= 599) return true
      a.problem('custom-http-errors', `"${n}" is no status from 300 to 599`)
      return false
    })
    const [name = '', port] = service?.split(':') ?? []
    const from = service === undefined ? context.defaultBackend() : context.upstream(a.namespace, name, port === undefined ? undefined : /^\d+$/.test(port) ? Number(port) : port)
    if (from === undefined || typeof from === 'string') {
      if (from === undefined) a.problem('custom-http-errors', 'needs default-backend, or --default-backend-service')
      else a.problem('default-backend', from)
      return undefined
    }
    return { use: 'errors', statuses, from, alone: service !== undefined, namespace: a.namespace, ingress: a.ingress.metadata.name } satisfies Errors
  },
  step(policy: Errors, tools: Tools): Step {
    const { from } = policy
    const told = (x: Exchange, status: number, format: string | undefined): (readonly [string, string])[] => [
      ['X-Code', String(status)],
      ['X-Format', format ?? 'text/html'],
      ['X-Original-URI', x.path + x.query],
      ['X-Namespace', policy.namespace],
      ['X-Ingress-Name', policy.ingress],
      ['X-Service-Name', x.route.service.slice(x.route.service.indexOf('/') + 1)],
      ['X-Service-Port', x.route.upstream.name.slice(x.route.upstream.name.lastIndexOf(':') + 1)],
    ]
    return {
      ...(policy.alone
        ? {
            request(x) {
              if (x.upstream.endpoints.length > 0) return undefined
              x.upstream = from
              for (const [name, value] of told(x, 503, x.header('accept'))) x.addRequest(name, value)
              return undefined
            },
          }
        : {}),
      ...(policy.statuses.length === 0
        ? {}
        : {
            response(x, response) {
              const { status } = response
              if (!policy.statuses.includes(status) || x.upstream === from) return undefined
              const n = from.endpoints.length
              if (n === 0) return undefined
              const endpoint = from.endpoints[Math.floor(tools.random() * n)]!
              return tools.ask({ url: `http://${endpoint.key}/`, method: 'GET', timeout: 5000, headers: [...told(x, status, response.header('content-type')), ['X-Request-ID', x.requestId]] }).then(
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
          }),
    }
  },
}
