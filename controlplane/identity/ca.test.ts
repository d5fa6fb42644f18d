import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { execFile } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { test } from 'tap'
import { SqliteStore } from '../store/sqlite.ts'
import { folder } from '../testing/plane.ts'
import { authority } from './ca.ts'

const main = join(import.meta.dirname, '../../cli/main.ts')

/** What is in the kubeconfig that a process of its own prints. */
const printed = (data: string): Promise<{ readonly ca: string; readonly own: string }> =>
  new Promise((resolve, reject) => {
    execFile(process.execPath, ['--disable-warning=ExperimentalWarning', main, 'kubeconfig', 'admin', '--data', data], (error, out) => {
      const pem = (key: string): string => Buffer.from(new RegExp(`${key}: (\\S+)`).exec(out)?.[1] ?? '', 'base64').toString()
      if (error === null) resolve({ ca: pem('certificate-authority-data'), own: pem('client-certificate-data') })
      else reject(error)
    })
  })

test('several that start at once on an empty folder have one authority between them', async (t) => {
  const processes = folder()
  const all = await Promise.all([printed(processes), printed(processes), printed(processes)])
  t.equal(new Set(all.map((k) => k.ca)).size, 1)
  for (const { ca, own } of all) t.ok(new X509Certificate(own).verify(new X509Certificate(ca).publicKey), 'what each signed is good')
  const data = folder()
  const many = await Promise.all(Array.from({ length: 8 }, () => authority(data)))
  t.equal(new Set(many.map((a) => a.certificate)).size, 1)
  t.equal(new Set(many.map((a) => String(a.tokenKey.export({ type: 'pkcs8', format: 'pem' })))).size, 1)
  const issued = await many[7]!.client('ann', [])
  t.ok(new X509Certificate(issued.certificate).verify(new X509Certificate(many[0]!.certificate).publicKey))
  t.strictSame(readdirSync(data).sort(), ['ca.crt', 'ca.key', 'sa.key'], 'nothing is left beside')
})

test('nobody else may read the keys and the store', async (t) => {
  const data = folder()
  await authority(data)
  const store = new SqliteStore(join(data, 'store.db'))
  await store.put('/a', Buffer.from('x'), 0)
  for (const name of readdirSync(data)) t.equal(statSync(join(data, name)).mode & 0o777, 0o600, name)
  await store.close()
})
