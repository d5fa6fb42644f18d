import type { Retries } from '../table.ts'
import type { Annotations, Feature } from './feature.ts'

const streams = 'bodies are streamed with back pressure, never spooled'

/** Times, sizes, tries: how requests are passed on. */
export const proxy: Feature = {
  name: 'proxy',
  keys: {
    'proxy-connect-timeout': { help: 'seconds to connect to an endpoint', default: '5' },
    'proxy-read-timeout': { help: 'seconds between two reads from an endpoint; where set, also how long a tunnel may be silent', default: '60' },
    'proxy-send-timeout': { help: 'seconds between two writes to an endpoint', default: '60' },
    'proxy-body-size': { help: 'largest request body, 0 any; 413 above, told while it streams', default: '1m for classes taken over from ingress-nginx, else 0' },
    'client-body-buffer-size': { help: 'memory for a request body', support: 'ignored', note: streams },
    'proxy-buffering': { help: 'buffers answers', default: 'off', support: 'ignored', note: streams },
    'proxy-request-buffering': { help: 'reads a request whole before it is passed on', default: 'on', support: 'differs', note: 'requests are always streamed' },
    'proxy-buffer-size': { help: 'memory for the head of an answer', default: '4k', support: 'ignored', note: 'heads of answers may be 32 KiB' },
    'proxy-buffers-number': { help: 'buffers of an answer', support: 'ignored', note: streams },
    'proxy-busy-buffers-size': { help: 'buffers of an answer', support: 'ignored', note: streams },
    'proxy-max-temp-file-size': { help: 'spool file of an answer', support: 'ignored', note: streams },
    'proxy-http-version': { help: 'version towards endpoints', default: '1.1', support: 'differs', note: 'always 1.1' },
    'proxy-next-upstream': { help: 'when another endpoint is asked: error, timeout, http_502 …, non_idempotent, off', default: 'error timeout' },
    'proxy-next-upstream-tries': { help: 'tries, the first included; 0: as many as there are endpoints', default: '3' },
    'proxy-next-upstream-timeout': { help: 'seconds in which tries are made', default: '0' },
    'connection-proxy-header': { help: 'Connection towards endpoints', support: 'ignored', note: 'connections to endpoints are kept alive' },
    'enable-access-log': { help: 'writes the access log', default: 'true' },
    'enable-rewrite-log': { help: 'logs rewrites', support: 'ignored', note: 'use switchyard explain' },
  },
  read(a, draft, context) {
    const read = a.time('proxy-read-timeout')
    draft.timeouts = {
      connect: a.time('proxy-connect-timeout') ?? draft.timeouts.connect,
      read: read ?? draft.timeouts.read,
      send: a.time('proxy-send-timeout') ?? draft.timeouts.send,
      tunnel: read ?? draft.timeouts.tunnel,
    }
    draft.maxBody = a.size('proxy-body-size') ?? (context.nginx ? 1_048_576 : 0)
    draft.silent = a.flag('enable-access-log') === false
    draft.retries = retriesOf(a, draft.retries)
  },
}

function retriesOf(a: Annotations, fallback: Retries): Retries {
  const words = a.text('proxy-next-upstream')?.split(/[\s,]+/)
  const tries = a.number('proxy-next-upstream-tries') ?? fallback.tries
  const most = tries === 0 ? 100 : tries
  const within = a.time('proxy-next-upstream-timeout') ?? fallback.within
  if (words === undefined) return { ...fallback, tries: most, within }
  const known = ['error', 'timeout', 'invalid_header', 'non_idempotent', 'off', 'denied', 'updating']
  for (const w of words) if (!known.includes(w) && !/^http_(5\d\d|403|404|429)$/.test(w)) a.problem('proxy-next-upstream', `unknown word "${w}"`)
  if (words.includes('off')) return { tries: 1, within: 0, error: false, timeout: false, nonIdempotent: false, statuses: [] }
  return {
    tries: most,
    within,
    error: words.includes('error'),
    timeout: words.includes('timeout'),
    nonIdempotent: words.includes('non_idempotent'),
    statuses: words.flatMap((w) => (/^http_\d{3}$/.test(w) ? [Number(w.slice(5))] : [])),
  }
}
