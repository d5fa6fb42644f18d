import { test } from 'tap'
import { Net, route, steady, tableOf } from '../testing/memory.ts'

/**
 * Payloads that proxies were broken by. `statuses`: what the client is told, in order. `forwards`: the request lines the endpoint
 * may see, exactly these. `never`: what the endpoint must not see. Each is sent whole and cut at every octet, with the same outcome.
 */
interface Attack {
  readonly name: string
  readonly send: string
  readonly statuses: readonly number[]
  readonly forwards?: readonly string[]
  readonly never?: RegExp
  readonly sees?: RegExp
  /** What the endpoint answers; 200 with two octets if left out. */
  readonly answers?: string
}

const H = 'Host: a.test\r\n'
const next = `GET /next HTTP/1.1\r\n${H}\r\n`
const smuggled = `GET /smuggled HTTP/1.1\r\n${H}\r\n`

const attacks: readonly Attack[] = [
  // Where a message ends.
  { name: 'CL.TE: both lengths', send: `POST / HTTP/1.1\r\n${H}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG`, statuses: [400] },
  { name: 'TE.CL: both lengths, the other order', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n${smuggled}`, statuses: [400] },
  { name: 'TE.TE: two codings', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n`, statuses: [400] },
  { name: 'TE.TE: chunked twice', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n`, statuses: [400] },
  { name: 'TE: unknown coding before chunked', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`, statuses: [501] },
  { name: 'TE: chunked before another', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n`, statuses: [400] },
  { name: 'TE: xchunked', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`, statuses: [400] },
  { name: 'TE: vertical tab before chunked', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n`, statuses: [400] },
  { name: 'TE: quoted', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n`, statuses: [400] },
  { name: 'TE: with a parameter', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n`, statuses: [400] },
  { name: 'TE: empty', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: \r\n\r\n`, statuses: [400] },
  { name: 'TE: space before the colon', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n`, statuses: [400] },
  { name: 'TE: folded', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n`, statuses: [400] },
  { name: 'TE: hidden behind a bare LF', send: `POST / HTTP/1.1\r\n${H}X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, statuses: [400] },
  { name: 'TE: hidden behind a bare CR', send: `POST / HTTP/1.1\r\n${H}X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, statuses: [400] },
  {
    name: 'TE: underscore twin is not passed on',
    send: `POST / HTTP/1.1\r\n${H}Transfer_Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc`,
    statuses: [200],
    forwards: ['POST /'],
    never: /transfer.encoding/i,
  },
  {
    name: 'TE: CHUNKED in capitals is chunked, and forwarded as we write it',
    send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: CHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n${next}`,
    statuses: [200, 200],
    forwards: ['POST /', 'GET /next'],
    sees: /\r\nTransfer-Encoding: chunked\r\n/,
  },
  { name: 'TE in HTTP/1.0', send: `POST / HTTP/1.0\r\n${H}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, statuses: [400] },
  { name: 'CL: two, the same', send: `POST / HTTP/1.1\r\n${H}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc`, statuses: [400] },
  { name: 'CL: two, different', send: `POST / HTTP/1.1\r\n${H}Content-Length: 0\r\nContent-Length: 44\r\n\r\n${smuggled}`, statuses: [400] },
  { name: 'CL: a list', send: `POST / HTTP/1.1\r\n${H}Content-Length: 3, 3\r\n\r\nabc`, statuses: [400] },
  { name: 'CL: plus sign', send: `POST / HTTP/1.1\r\n${H}Content-Length: +3\r\n\r\nabc`, statuses: [400] },
  { name: 'CL: minus sign', send: `POST / HTTP/1.1\r\n${H}Content-Length: -1\r\n\r\n`, statuses: [400] },
  { name: 'CL: hexadecimal', send: `POST / HTTP/1.1\r\n${H}Content-Length: 0x3\r\n\r\nabc`, statuses: [400] },
  { name: 'CL: space inside', send: `POST / HTTP/1.1\r\n${H}Content-Length: 1 1\r\n\r\n${'a'.repeat(11)}`, statuses: [400] },
  { name: 'CL: empty', send: `POST / HTTP/1.1\r\n${H}Content-Length:\r\n\r\n`, statuses: [400] },
  { name: 'CL: more than any number', send: `POST / HTTP/1.1\r\n${H}Content-Length: 99999999999999999999\r\n\r\n`, statuses: [400] },
  { name: 'CL: underscore twin is not passed on', send: `GET / HTTP/1.1\r\n${H}Content_Length: 5\r\n\r\n${next}`, statuses: [200, 200], forwards: ['GET /', 'GET /next'], never: /content_length/i },
  { name: 'CL.0: a GET with a body', send: `GET / HTTP/1.1\r\n${H}Content-Length: ${smuggled.length}\r\n\r\n${smuggled}`, statuses: [200], forwards: ['GET /'] },
  {
    name: 'chunked DELETE keeps its framing',
    send: `DELETE / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n${smuggled.length.toString(16)}\r\n${smuggled}\r\n0\r\n\r\n`,
    statuses: [200],
    forwards: ['DELETE /'],
    sees: /Transfer-Encoding: chunked\r\n/,
  },
  {
    name: 'chunked OPTIONS keeps its framing',
    send: `OPTIONS / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n${next}`,
    statuses: [200, 200],
    forwards: ['OPTIONS /', 'GET /next'],
  },
  // Chunks.
  { name: 'chunk: length in 0x', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n`, statuses: [400] },
  { name: 'chunk: no length', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n`, statuses: [400] },
  { name: 'chunk: negative length', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n`, statuses: [400] },
  { name: 'chunk: length that wraps around', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n`, statuses: [400] },
  { name: 'chunk: space before the length', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n 3\r\nabc\r\n0\r\n\r\n`, statuses: [400] },
  { name: 'chunk: space behind the length', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n`, statuses: [400] },
  { name: 'chunk: bare LF behind the length', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n`, statuses: [400] },
  { name: 'chunk: bare LF in an extension', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n3;a\nxy\r\nabc\r\n0\r\n\r\n`, statuses: [400] },
  { name: 'chunk: bare CR in an extension', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n3;a\rxy\r\nabc\r\n0\r\n\r\n`, statuses: [400] },
  { name: 'chunk: data longer than its length', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n`, statuses: [400] },
  { name: 'chunk: bare LF behind the data', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n`, statuses: [400] },
  { name: 'chunk: an extension passes', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n3;a="b"\r\nabc\r\n0\r\n\r\n${next}`, statuses: [200, 200], forwards: ['POST /', 'GET /next'] },
  { name: 'chunk: extensions without end', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n3;${'a'.repeat(17_000)}\r\nabc\r\n0\r\n\r\n`, statuses: [400] },
  { name: 'trailer: framing', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n`, statuses: [400] },
  { name: 'trailer: identity', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n0\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n`, statuses: [400] },
  { name: 'trailer: identity by underscores', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n0\r\nX_Forwarded_For: 1.2.3.4\r\n\r\n`, statuses: [400] },
  { name: 'trailer: folded', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n c\r\n\r\n`, statuses: [400] },
  { name: 'trailer: bare LF', send: `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\n\r\n`, statuses: [400] },
  // Grammar.
  { name: 'bare LF ends a line', send: `GET / HTTP/1.1\n${H}\r\n`, statuses: [400] },
  { name: 'bare LF ends the head', send: `GET / HTTP/1.1\r\n${H}\n`, statuses: [400] },
  { name: 'obs-fold', send: `GET / HTTP/1.1\r\n${H}X: a\r\n b\r\n\r\n`, statuses: [400] },
  { name: 'white space before the first field', send: `GET / HTTP/1.1\r\n ${H}\r\n`, statuses: [400] },
  { name: 'space before a colon', send: `GET / HTTP/1.1\r\nHost : a.test\r\n\r\n`, statuses: [400] },
  { name: 'empty field name', send: `GET / HTTP/1.1\r\n${H}: x\r\n\r\n`, statuses: [400] },
  { name: 'field without a colon', send: `GET / HTTP/1.1\r\n${H}Nonsense\r\n\r\n`, statuses: [400] },
  { name: 'NUL in a value', send: `GET / HTTP/1.1\r\n${H}X: a\0b\r\n\r\n`, statuses: [400] },
  { name: 'NUL in the target', send: `GET /\0 HTTP/1.1\r\n${H}\r\n`, statuses: [400] },
  { name: 'tab between method and target', send: `GET\t/ HTTP/1.1\r\n${H}\r\n`, statuses: [400] },
  { name: 'two spaces in the request line', send: `GET  / HTTP/1.1\r\n${H}\r\n`, statuses: [400] },
  { name: 'HTTP/0.9', send: 'GET /\r\n\r\n', statuses: [400] },
  { name: 'HTTP/2.0 in a request line', send: `GET / HTTP/2.0\r\n${H}\r\n`, statuses: [505] },
  { name: 'HTTP/1.2', send: `GET / HTTP/1.2\r\n${H}\r\n`, statuses: [505] },
  { name: 'lower case version', send: `GET / http/1.1\r\n${H}\r\n`, statuses: [400] },
  { name: 'malformed method', send: `GE(T / HTTP/1.1\r\n${H}\r\n`, statuses: [400] },
  { name: 'an unknown method passes', send: `PURGE /x HTTP/1.1\r\n${H}\r\n`, statuses: [200], forwards: ['PURGE /x'] },
  { name: 'one empty line before a request', send: `\r\nGET / HTTP/1.1\r\n${H}\r\n`, statuses: [200], forwards: ['GET /'] },
  { name: 'two empty lines before a request', send: `\r\n\r\nGET / HTTP/1.1\r\n${H}\r\n`, statuses: [400] },
  { name: 'CONNECT', send: `CONNECT a.test:443 HTTP/1.1\r\n${H}\r\n`, statuses: [405] },
  { name: 'TRACE', send: `TRACE / HTTP/1.1\r\n${H}\r\n`, statuses: [405] },
  { name: 'Expect that nobody knows', send: `POST / HTTP/1.1\r\n${H}Expect: 200-ok\r\nContent-Length: 1\r\n\r\na`, statuses: [417] },
  // Host.
  { name: 'no Host', send: 'GET / HTTP/1.1\r\n\r\n', statuses: [400] },
  { name: 'two Hosts', send: `GET / HTTP/1.1\r\n${H}Host: b.test\r\n\r\n`, statuses: [400] },
  { name: 'two equal Hosts', send: `GET / HTTP/1.1\r\n${H}${H}\r\n`, statuses: [400] },
  { name: 'Host with a path', send: 'GET / HTTP/1.1\r\nHost: a.test/x\r\n\r\n', statuses: [400] },
  { name: 'Host with credentials', send: 'GET / HTTP/1.1\r\nHost: x@a.test\r\n\r\n', statuses: [400] },
  { name: 'Host list', send: 'GET / HTTP/1.1\r\nHost: a.test, b.test\r\n\r\n', statuses: [400] },
  { name: 'Host with a port that is none', send: 'GET / HTTP/1.1\r\nHost: a.test:80x\r\n\r\n', statuses: [400] },
  { name: 'Host in capitals, with port and final dot, is the same host', send: 'GET / HTTP/1.1\r\nHost: A.Test.:80\r\n\r\n', statuses: [200], forwards: ['GET /'] },
  {
    name: 'absolute form: its authority counts, and is forwarded',
    send: `GET http://a.test/x HTTP/1.1\r\nHost: b.test\r\n\r\n`,
    statuses: [200],
    forwards: ['GET /x'],
    sees: /\r\nHost: a\.test\r\n/,
    never: /b\.test/,
  },
  { name: 'absolute form: a host of nobody', send: `GET http://evil.test/x HTTP/1.1\r\n${H}\r\n`, statuses: [404] },
  { name: 'absolute form: credentials', send: `GET http://x@a.test/ HTTP/1.1\r\n${H}\r\n`, statuses: [400] },
  { name: 'target without a slash', send: `GET x HTTP/1.1\r\n${H}\r\n`, statuses: [400] },
  { name: 'OPTIONS *', send: `OPTIONS * HTTP/1.1\r\n${H}\r\n`, statuses: [200] },
  // Target: what is matched is what is forwarded.
  { name: 'dot segments', send: `GET /open/../closed HTTP/1.1\r\n${H}\r\n`, statuses: [200], forwards: ['GET /closed'] },
  { name: 'encoded dot segments', send: `GET /open/%2e%2E/closed HTTP/1.1\r\n${H}\r\n`, statuses: [200], forwards: ['GET /closed'] },
  { name: 'dot segments above the root', send: `GET /../etc HTTP/1.1\r\n${H}\r\n`, statuses: [400] },
  { name: 'repeated slashes', send: `GET //closed///x HTTP/1.1\r\n${H}\r\n`, statuses: [200], forwards: ['GET /closed/x'] },
  { name: 'path parameters on dots', send: `GET /open/..;/closed HTTP/1.1\r\n${H}\r\n`, statuses: [400] },
  { name: 'encoded slash beside dots', send: `GET /open/..%2fclosed HTTP/1.1\r\n${H}\r\n`, statuses: [400] },
  { name: 'encoded backslash beside dots', send: `GET /open/..%5cclosed HTTP/1.1\r\n${H}\r\n`, statuses: [400] },
  { name: 'backslash', send: `GET /open\\..\\closed HTTP/1.1\r\n${H}\r\n`, statuses: [400] },
  { name: 'encoded NUL', send: `GET /x%00 HTTP/1.1\r\n${H}\r\n`, statuses: [400] },
  { name: 'broken escape', send: `GET /x%g1 HTTP/1.1\r\n${H}\r\n`, statuses: [400] },
  { name: 'fragment', send: `GET /x#y HTTP/1.1\r\n${H}\r\n`, statuses: [400] },
  { name: 'octets above 127', send: `GET /\xe9 HTTP/1.1\r\n${H}\r\n`, statuses: [400] },
  { name: 'encoded letters are letters', send: `GET /%63losed HTTP/1.1\r\n${H}\r\n`, statuses: [200], forwards: ['GET /closed'] },
  { name: 'the query is nobody’s path', send: `GET /x?a=/../b%2f HTTP/1.1\r\n${H}\r\n`, statuses: [200], forwards: ['GET /x?a=/../b%2f'] },
  // Hop by hop, identity.
  { name: 'Connection names Host', send: `GET / HTTP/1.1\r\n${H}Connection: Host\r\n\r\n`, statuses: [400] },
  { name: 'Connection names Content-Length', send: `POST / HTTP/1.1\r\n${H}Connection: close, Content-Length\r\nContent-Length: 1\r\n\r\na`, statuses: [400] },
  { name: 'Connection names Authorization', send: `GET / HTTP/1.1\r\n${H}Authorization: x\r\nConnection: authorization\r\n\r\n`, statuses: [400] },
  {
    name: 'Connection names our forwarding fields: they are there all the same',
    send: `GET / HTTP/1.1\r\n${H}Connection: X-Forwarded-For, X-Real-IP\r\n\r\n`,
    statuses: [200],
    forwards: ['GET /'],
    sees: /X-Real-IP: 10\.[\s\S]*X-Forwarded-For: 10\./,
  },
  {
    name: 'what Connection names is not passed on',
    send: `GET / HTTP/1.1\r\n${H}Connection: X-Hop\r\nX-Hop: 1\r\nX-Stay: 2\r\n\r\n`,
    statuses: [200],
    forwards: ['GET /'],
    never: /x-hop/i,
    sees: /X-Stay: 2/,
  },
  {
    name: 'hop-by-hop fields are not passed on',
    send: `GET / HTTP/1.1\r\n${H}TE: trailers\r\nKeep-Alive: 5\r\nProxy-Connection: close\r\nProxy-Authorization: x\r\nUpgrade: x\r\n\r\n`,
    statuses: [200],
    forwards: ['GET /'],
    never: /\r\n(te|keep-alive|proxy-|upgrade)/i,
  },
  { name: 'httpoxy', send: `GET / HTTP/1.1\r\n${H}Proxy: evil:80\r\n\r\n`, statuses: [200], forwards: ['GET /'], never: /evil/ },
  {
    name: 'spoofed identity',
    send: `GET / HTTP/1.1\r\n${H}X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: 6\r\nX-Forwarded-Host: 6.6\r\nX-Forwarded-Port: 6\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nTrue-Client-IP: 6.6.6.6\r\nX-Client-IP: 6.6.6.6\r\nX-Forwarded-Prefix: /6\r\n\r\n`,
    statuses: [200],
    forwards: ['GET /'],
    never: /: \/?6|=6/,
  },
  { name: 'spoofed identity by underscores', send: `GET / HTTP/1.1\r\n${H}X_Forwarded_For: 6.6.6.6\r\nX-Forwarded_Proto: 6\r\n\r\n`, statuses: [200], forwards: ['GET /'], never: /: 6/ },
  { name: 'spoofed original target', send: `GET / HTTP/1.1\r\n${H}X-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\n\r\n`, statuses: [200], forwards: ['GET /'], never: /admin/ },
  {
    name: 'spoofed client certificate',
    send: `GET / HTTP/1.1\r\n${H}ssl-client-verify: SUCCESS\r\nssl-client-subject-dn: CN=admin\r\n\r\n`,
    statuses: [200],
    forwards: ['GET /'],
    never: /SUCCESS|admin/,
  },
  { name: 'a request id that could end its line is replaced', send: `GET / HTTP/1.1\r\n${H}X-Request-ID: <script>\r\n\r\n`, statuses: [200], forwards: ['GET /'], never: /script/ },
  { name: 'names of prototypes are names', send: `GET / HTTP/1.1\r\n${H}__proto: 1\r\nconstructor: 2\r\nhasOwnProperty: 3\r\n\r\n`, statuses: [200], forwards: ['GET /'], sees: /constructor: 2/ },
  { name: 'host of a prototype', send: 'GET / HTTP/1.1\r\nHost: constructor\r\n\r\n', statuses: [404] },
  // Upgrades.
  {
    name: 'an upgrade that the endpoint does not take is an ordinary request',
    send: `GET / HTTP/1.1\r\n${H}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n${next}`,
    statuses: [200, 200],
    forwards: ['GET /', 'GET /next'],
  },
  {
    name: 'h2c is not passed on',
    send: `GET / HTTP/1.1\r\n${H}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n`,
    statuses: [200],
    forwards: ['GET /'],
    never: /h2c|settings/i,
  },
  {
    name: 'an upgrade with a body is no upgrade',
    send: `POST / HTTP/1.1\r\n${H}Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc`,
    statuses: [200],
    forwards: ['POST /'],
    never: /upgrade/i,
  },
  // Hostile endpoints.
  { name: 'endpoint: two lengths', send: `GET / HTTP/1.1\r\n${H}\r\n`, statuses: [502], forwards: ['GET /'], answers: 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab' },
  {
    name: 'endpoint: both framings',
    send: `GET / HTTP/1.1\r\n${H}\r\n`,
    statuses: [502],
    forwards: ['GET /'],
    answers: 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
  },
  { name: 'endpoint: bare LF', send: `GET / HTTP/1.1\r\n${H}\r\n`, statuses: [502], forwards: ['GET /'], answers: 'HTTP/1.1 200 OK\nContent-Length: 1\r\n\r\na' },
  { name: 'endpoint: folded line', send: `GET / HTTP/1.1\r\n${H}\r\n`, statuses: [502], forwards: ['GET /'], answers: 'HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 1\r\n\r\na' },
  { name: 'endpoint: unasked 101', send: `GET / HTTP/1.1\r\n${H}\r\n`, statuses: [502], forwards: ['GET /'], answers: 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n' },
  { name: 'endpoint: not HTTP', send: `GET / HTTP/1.1\r\n${H}\r\n`, statuses: [502], forwards: ['GET /'], answers: '220 smtp.test ESMTP\r\n' },
  { name: 'endpoint: a head without end', send: `GET / HTTP/1.1\r\n${H}\r\n`, statuses: [502], forwards: ['GET /'], answers: `HTTP/1.1 200 OK\r\nX: ${'a'.repeat(40_000)}\r\n\r\n` },
  {
    name: 'endpoint: a second answer is not kept for the next request',
    send: `GET / HTTP/1.1\r\n${H}\r\n${next}`,
    statuses: [200, 200],
    forwards: ['GET /', 'GET /next'],
    answers: 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil',
  },
]

/** The engine between a client and an endpoint on a network that cuts what clients send at `cutAt`. */
async function lab(answers: string): Promise<{ run(send: string, cutAt: number): Promise<{ statuses: string; client: string; endpoint: string; lines: string }> }> {
  let cutAt = 0
  const net = new Net(tableOf(route('a.test/', ['10.1.0.1:8080'])), { network: { cut: (n, offset) => (offset < cutAt ? Math.min(n, cutAt - offset) : n), take: (n) => n, capacity: 1_000_000 } })
  const backend = await net.backend('10.1.0.1:8080', answers)
  return {
    run: async (send, at) => {
      cutAt = at
      net.server.upstreams.forEach((u) => u.discard())
      net.server.pools.clear()
      net.settle()
      backend.connections.length = 0
      const client = await net.connect()
      client.say(send)
      net.settle()
      // What waits for more octets is told that none will come.
      const endpoint = steady(backend.got).replaceAll(client.wire.local.host, '10.9.9.9')
      const told = steady(client.got)
      client.wire.abort()
      net.settle()
      return {
        statuses: [...told.matchAll(/(?:^|\r\n\r\n|[a-z\n])HTTP\/1\.1 (\d{3}) /g)].map((m) => m[1]).join(),
        client: told,
        endpoint,
        lines: requestLines(endpoint).join(' | '),
      }
    },
  }
}

/** What a naive reader takes for requests: it believes Content-Length and chunks, and nothing else. */
function requestLines(text: string): string[] {
  const out: string[] = []
  let at = 0
  while (at < text.length) {
    const end = text.indexOf('\r\n\r\n', at)
    if (end < 0) return [...out, `rest ${JSON.stringify(text.slice(at))}`]
    const head = text.slice(at, end)
    out.push(head.slice(0, head.indexOf(' HTTP/1.1')))
    at = end + 4
    const length = /\r\ncontent-length: *(\d+)/i.exec(head)
    if (/\r\ntransfer-encoding: *chunked/i.test(head)) {
      for (;;) {
        const size = Number.parseInt(text.slice(at), 16)
        const line = text.indexOf('\r\n', at)
        if (line < 0 || Number.isNaN(size)) return out
        at = line + 2 + size + 2
        if (size === 0) break
      }
    } else if (length !== null) at += Number(length[1])
  }
  return out
}

for (const attack of attacks) {
  void test(attack.name, async (t) => {
    const { run } = await lab(attack.answers ?? 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi')
    const whole = await run(attack.send, 0)
    t.equal(whole.statuses, attack.statuses.join(), whole.client.slice(0, 300))
    if (attack.forwards !== undefined) t.equal(whole.lines, attack.forwards.join(' | '))
    else if (attack.statuses[0] !== 400 && attack.statuses[0] !== 200) t.equal(whole.endpoint, '', 'the endpoint sees nothing')
    if (attack.never !== undefined) t.notMatch(whole.endpoint, attack.never)
    if (attack.sees !== undefined) t.match(whole.endpoint, attack.sees)
    t.notMatch(whole.lines, /smuggled/)
    const length = Math.min(attack.send.length, 600)
    let differ = 0
    for (let cut = 1; cut < length; cut++) {
      const parts = await run(attack.send, cut)
      // A bad chunk may be seen only after the head went on: then the endpoint's connection is destroyed instead.
      const same = parts.statuses === whole.statuses && (attack.forwards === undefined ? true : parts.lines === whole.lines)
      if (!same && differ++ === 0) t.fail(`cut at ${cut}: ${parts.statuses} instead of ${whole.statuses}; the endpoint saw ${parts.lines}`)
      if (/smuggled/.test(parts.lines)) t.fail(`cut at ${cut}: smuggled`)
      if (attack.never?.test(parts.endpoint) === true) t.fail(`cut at ${cut}: the endpoint saw it`)
    }
  })
}
