import { test, type Test } from 'tap'
import { createLog, silent } from '../lib/log.ts'
import { connect } from './client.ts'
import { parseKubeconfig } from './credentials.ts'
import { Mirror, type MirrorOptions } from './mirror.ts'
import type { Service } from './objects.ts'
import { services } from './resources.ts'
import { FakeApi } from './testing/api.ts'
import { namespace, service } from './testing/builders.ts'
import { wrongs } from './testing/wrongs.ts'

/** A mirror of Services that records what it reports, as `+ns/name`, `~ns/name`, `-ns/name`. */
async function mirrored(t: Test, api: FakeApi, how: Partial<MirrorOptions<Service>> = {}, quick = false) {
  const ended = new AbortController()
  const client = connect(await parseKubeconfig(api.kubeconfigText()), { timeout: quick ? 400 : 10_000 })
  const told: string[] = []
  const mirror = new Mirror<Service>(client, services, {
    log: silent,
    signal: ended.signal,
    silence: quick ? 150 : 10_000,
    firstWait: 5,
    mostWait: 20,
    changed: (now, before) => {
      const { namespace, name } = (now ?? before)!.metadata
      told.push(`${now === undefined ? '-' : before === undefined ? '+' : '~'}${namespace}/${name}`)
      // Told only after the store was updated.
      t.equal(mirror.objects.get(`${namespace}/${name}`), now, 'the map is ahead of the report')
    },
    ...how,
  })
  t.teardown(async () => {
    ended.abort(new Error('over'))
    client.close()
    await api.close()
  })
  /** Waits until the copy equals what the API holds. */
  const same = (): Promise<void> => api.until(() => JSON.stringify(versions(mirror.objects.values())) === JSON.stringify(versions(api.all(services))), 'the mirror equals the store')
  return { mirror, told, same, client, ended }
}

function versions(objects: Iterable<Service>): readonly string[] {
  return [...objects].map((o) => `${o.metadata.namespace}/${o.metadata.name} ${o.metadata.resourceVersion}`).sort()
}

const web = service('demo/web', { clusterIP: '10.96.0.20' })
const api_ = service('demo/api', { clusterIP: '10.96.0.21' })
const late = service('demo/late', { clusterIP: '10.96.0.22' })

test('a mirror lists in pages, then follows additions, changes and deletions', async (t) => {
  const api = await FakeApi.start()
  for (let i = 0; i < 25; i++) api.put(service(`demo/s${i}`))
  const { mirror, told, same } = await mirrored(t, api, { page: 10 })
  await mirror.whenSynced()
  t.equal(mirror.objects.size, 25)
  t.equal(told.length, 25)
  t.equal(api.requests.filter((r) => r.verb === 'list').length, 3)
  told.length = 0
  api.put(web)
  api.put(service('demo/web', { clusterIP: '10.96.0.99' }))
  api.remove(web)
  await same()
  await api.until(() => told.length === 3)
  t.strictSame(told, ['+demo/web', '~demo/web', '-demo/web'])
  const watch = api.requests.find((r) => r.verb === 'watch')!
  t.match(watch.path, /resourceVersion=\d+/)
  t.match(watch.path, /allowWatchBookmarks=true/)
})

test('objects are reduced before they are kept, and selected by the server', async (t) => {
  const api = await FakeApi.start()
  api.put(web)
  api.put(service('demo/hidden', {}, { metadata: { labels: { hidden: 'yes' } } }))
  const ended = new AbortController()
  const mirror = new Mirror(await api.client(), services, { labelSelector: '!hidden', reduce: (s) => s.spec.clusterIP, log: silent, signal: ended.signal })
  await mirror.whenSynced()
  t.strictSame([...mirror.objects], [['demo/web', '10.96.0.20']])
  api.put(service('demo/web', { clusterIP: '10.96.0.20' }, { metadata: { labels: { hidden: 'yes' } } }))
  await api.until(() => mirror.objects.size === 0, 'an object that no longer fits is gone')
  ended.abort()
  await api.close()
})

for (const { name, relists, begin, meanwhile } of wrongs) {
  test(`the mirror ends up right, and reports what went, when ${name}`, async (t) => {
    const api = await FakeApi.start()
    api.putAll([web, api_])
    const { mirror, told, same } = await mirrored(t, api, {}, true)
    await api.until(() => api.watches() === 1)
    told.length = 0
    const lists = api.requests.filter((r) => r.verb === 'list').length
    begin(api)
    api.remove(web)
    api.put(late)
    api.put(service('demo/api', { clusterIP: '10.96.0.77' }))
    meanwhile?.(api)
    await same()
    // Back on a live watch, and it is one.
    await api.until(() => api.watches() >= 1)
    api.put(service('demo/after'))
    await same()
    t.strictSame([...new Set(told)].sort(), ['+demo/after', '+demo/late', '-demo/web', '~demo/api'])
    t.equal(told.length, 4, 'nothing is reported twice')
    t.equal(api.requests.filter((r) => r.verb === 'list').length > lists, relists, relists ? 'it lists again' : 'it goes on from the revision it knows')
    t.ok(mirror.synced)
  })
}

test('what did not change keeps its identity through a new list', async (t) => {
  const api = await FakeApi.start()
  api.putAll([web, api_])
  const { mirror, told, same } = await mirrored(t, api)
  await api.until(() => api.watches() === 1)
  const before = mirror.objects.get('demo/web')
  told.length = 0
  api.compact()
  api.expireWatches()
  await api.until(() => api.requests.filter((r) => r.verb === 'list').length === 2 && api.watches() === 1)
  await same()
  t.equal(mirror.objects.get('demo/web'), before)
  t.strictSame(told, [])
})

test('after the restore of an older backup the copy is that of the backup', async (t) => {
  const api = await FakeApi.start()
  const stored = api.put(web)
  api.put(late)
  const { told, same } = await mirrored(t, api)
  await api.until(() => api.watches() === 1)
  told.length = 0
  api.restore([stored], 5)
  await same()
  t.ok(told.includes('-demo/late'))
})

test('a page whose revision is gone is asked for again as a whole', async (t) => {
  const api = await FakeApi.start()
  for (let i = 0; i < 6; i++) api.put(service(`demo/s${i}`))
  let pages = 0
  const compacting = setInterval(() => {
    const lists = api.requests.filter((r) => r.verb === 'list').length
    if (lists > pages) {
      pages = lists
      api.put(service(`demo/x${lists}`))
      api.compact()
    }
  }, 1)
  t.teardown(() => clearInterval(compacting))
  api.delay = 20
  const { same, mirror } = await mirrored(t, api, { page: 2 })
  await mirror.whenSynced()
  clearInterval(compacting)
  await same()
  t.ok(api.requests.some((r) => r.verb === 'list' && !r.path.includes('limit=')))
})

test('bookmarks move the revision that the next watch begins at', async (t) => {
  const api = await FakeApi.start()
  api.put(web)
  await mirrored(t, api)
  await api.until(() => api.watches() === 1)
  const other = api.put(namespace('x'))
  api.bookmark()
  api.endWatches()
  await api.until(() => api.requests.filter((r) => r.verb === 'watch').length === 2)
  t.match(api.requests.at(-1)!.path, `resourceVersion=${other.metadata.resourceVersion}`)
})

test('a mirror stops at once when its signal fires, and says what went wrong before', async (t) => {
  const lines: string[] = []
  const api = await FakeApi.start()
  api.misbehave({ trouble: { code: 503, message: 'not today' } })
  const { mirror, ended } = await mirrored(t, api, { log: createLog({ json: true, write: (line) => void lines.push(line) }) })
  await api.until(() => api.requests.length > 2)
  ended.abort(new Error('over'))
  await t.rejects(mirror.whenSynced(), /over/)
  t.notOk(mirror.synced)
  t.match(lines[0], /not today/)
  t.equal(lines.length, 1, 'one line, not one a try')
  const asked = api.requests.length
  await new Promise((resolve) => setTimeout(resolve, 60))
  t.equal(api.requests.length, asked)
})
