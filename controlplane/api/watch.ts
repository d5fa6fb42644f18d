import type { ServerResponse } from 'node:http'
import { decode, type Json } from '../kinds/decode.ts'
import { apiVersion, type Kind } from '../kinds/kind.ts'
import { typeMeta, type Cache, type Entry, type Follower, type Happening } from './cache.ts'
import type { Form } from './negotiate.ts'
import type { Chooses } from './selectors.ts'
import { Failure, statusOf } from './status.ts'
import { partial, table } from './table.ts'

/** A watch as it was asked for. */
export interface WatchRequest {
  readonly kind: Kind
  readonly form: Form
  /** Only objects whose key begins so. */
  readonly prefix: string
  readonly chooses: Chooses | undefined
  /** `undefined`: begin with everything there is, as ADDED. */
  readonly from: number | undefined
  readonly bookmarks: boolean
  readonly initialEnd: boolean
  readonly timeoutMs: number
  readonly future?: boolean
}

/** A watcher that reads slower than this many bytes behind is closed: it lists again, the others do not notice. */
const mostBehind = 16 * 1024 * 1024

const prefixes = new Map<string, Buffer>()
const opening = (type: string): Buffer => {
  let b = prefixes.get(type)
  if (b === undefined) prefixes.set(type, (b = Buffer.from(`{"type":"${type}","object":`)))
  return b
}
const closing = Buffer.from('}\n')

/** The bytes of one event: made once for each form, the same for every watcher. */
function frame(k: Kind, form: Form, entry: Entry, type: string, first: boolean, now: number): Buffer {
  const id = `${k.group}/${form.as}/${form.version}/${form.include}/${type}${first ? '/first' : ''}`
  return entry.form(id, () => Buffer.concat([opening(type), objectBytes(k, form, entry, first, now), closing]))
}

const heads = new Map<Kind, Buffer>()

/** The JSON of one object in a form. */
export function objectBytes(k: Kind, form: Form, entry: Entry, first: boolean, now: number): Buffer {
  if (form.as === 'object') {
    if (k.storedAs !== undefined) return Buffer.from(JSON.stringify({ kind: k.kind, apiVersion: apiVersion(k), ...k.storedAs.read(entry.object) }))
    let head = heads.get(k)
    if (head === undefined) heads.set(k, (head = Buffer.from(`{${typeMeta(k)}`)))
    return Buffer.concat([head, entry.body()])
  }
  const o = k.storedAs === undefined ? entry.object : k.storedAs.read(entry.object)
  if (form.as === 'partial') return Buffer.from(JSON.stringify(partial(o, form.version)))
  return Buffer.from(JSON.stringify(table(k, [o], { resourceVersion: String(entry.revision) }, form.include, form.version, now, !first)))
}

/** Serves one watch on `response` until it ends. */
export function serveWatch(cache: Cache, response: ServerResponse, request: WatchRequest, now: () => number): void {
  const { kind: k, form, chooses, prefix } = request
  const objects = cache.of(k)
  let ended = false
  let sentRevision = request.from ?? cache.revision
  let rowsSent = false
  const chosen = (entry: Entry | undefined): boolean =>
    entry !== undefined && entry.key.startsWith(prefix) && (chooses === undefined || chooses(k.storedAs === undefined ? entry.object : k.storedAs.read(entry.object)))
  const send = (type: string, entry: Entry): void => {
    const first = form.as === 'table' && !rowsSent
    rowsSent = true
    write(frame(k, form, entry, type, first, now()))
  }
  const write = (bytes: Buffer): void => {
    if (ended) return
    response.write(bytes)
    if (response.writableLength > mostBehind) {
      end()
      response.destroy()
    }
  }
  const bookmark = (last: boolean): void => {
    const metadata: Json = { resourceVersion: String(cache.revision) }
    if (last) metadata['annotations'] = { 'k8s.io/initial-events-end': 'true', 'kubernetes.io/initial-events-list-blueprint': blueprint(k, form) }
    const object =
      form.as === 'object'
        ? { kind: k.kind, apiVersion: apiVersion(k), ...emptyOf(k, metadata) }
        : form.as === 'partial'
          ? { kind: 'PartialObjectMetadata', apiVersion: `meta.k8s.io/${form.version}`, metadata: { ...metadata, creationTimestamp: null } }
          : {
              kind: 'Table',
              apiVersion: `meta.k8s.io/${form.version}`,
              metadata: { resourceVersion: String(cache.revision) },
              columnDefinitions: rowsSent ? null : table(k, [], {}, 'None', 'v1', 0)['columnDefinitions'],
              rows: [{ cells: null, object: { kind: 'PartialObjectMetadata', apiVersion: `meta.k8s.io/${form.version}`, metadata: { ...metadata, creationTimestamp: null } } }],
            }
    write(Buffer.from(`{"type":"BOOKMARK","object":${JSON.stringify(object)}}\n`))
  }
  const tell = (h: Happening): void => {
    if (h.revision <= sentRevision) return
    sentRevision = h.revision
    const key = (h.now ?? h.before)!.key
    if (!key.startsWith(prefix)) return
    const was = chosen(h.before)
    const is = chosen(h.now)
    if (is) send(was ? 'MODIFIED' : 'ADDED', h.now!)
    else if (was) send('DELETED', h.gone)
  }
  const follower: Follower = { changed: tell, ended: () => finish() }
  const end = (): void => {
    if (ended) return
    ended = true
    objects.followers.delete(follower)
    clearTimeout(timeout)
    clearInterval(marks)
  }
  const finish = (): void => {
    if (ended) return
    end()
    response.end()
  }
  // Before the stream ends the watcher learns how far it is, so that the next one begins there.
  const timeout = setTimeout(() => finish(), request.timeoutMs)
  const marks = setInterval(() => request.bookmarks && bookmark(false), 60_000 * (0.9 + Math.random() * 0.2))
  response.on('close', end)
  response.on('error', end)
  // The headers go out now: some clients wait for them before they count their own time.
  response.writeHead(200, { 'content-type': form.type, 'cache-control': 'no-cache, private' })
  response.flushHeaders()
  if (request.from === undefined) {
    for (const entry of objects.sorted()) if (chosen(entry)) send('ADDED', entry)
    sentRevision = cache.revision
    if (request.initialEnd && request.bookmarks) bookmark(true)
  } else if (request.from < cache.floor) {
    write(Buffer.from(`{"type":"ERROR","object":${JSON.stringify(statusOf(new Failure(410, 'Expired', `too old resource version: ${request.from} (${cache.floor})`)))}}\n`))
    finish()
    return
  } else for (const h of objects.since(request.from)) tell(h)
  objects.followers.add(follower)
}

function emptyOf(k: Kind, metadata: Json): Json {
  return decode(k.type, { metadata: { ...metadata, creationTimestamp: null } })
}

/** The empty list that a client puts the initial events into. */
function blueprint(k: Kind, form: Form): string {
  const [kind, version] = form.as === 'partial' ? ['PartialObjectMetadataList', `meta.k8s.io/${form.version}`] : [`${k.kind}List`, apiVersion(k)]
  return Buffer.from(`${JSON.stringify({ kind, apiVersion: version, metadata: {}, items: null })}\n`).toString('base64')
}
