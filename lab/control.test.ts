import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'tap'
import { askControl, serveControl } from './control.ts'

test('a lab answers over its socket, and says why when it cannot', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'switchyard-control-'))
  const path = join(folder, 's')
  const server = await serveControl(path, { twice: async (body) => Number(body.n) * 2, nothing: async () => undefined, fail: async () => Promise.reject(new Error('not today')) })
  t.teardown(() => {
    server.close()
    rmSync(folder, { recursive: true })
  })
  t.equal(await askControl(path, 'twice', { n: 21 }), 42)
  t.equal(await askControl(path, 'nothing'), null)
  await t.rejects(askControl(path, 'fail'), { message: 'not today' })
  await t.rejects(askControl(path, 'constructor'), { message: 'the lab does not know "constructor"' })
  await t.rejects(askControl(join(folder, 'none'), 'twice'), /cannot reach the lab/)
})
