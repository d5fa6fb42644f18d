import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'tap'
import { folder, start } from './testing/plane.ts'

const kubeconfig = (data: string, ...more: string[]): Promise<string> =>
  new Promise((resolve, reject) => {
    execFile(process.execPath, ['--disable-warning=ExperimentalWarning', join(import.meta.dirname, '../cli/main.ts'), 'kubeconfig', 'system:dns', '--data', data, ...more], (error, out) =>
      error === null ? resolve(out) : reject(error),
    )
  })

test('a kubeconfig leads to where the control plane of its folder listened last', async (t) => {
  const data = folder()
  t.match(await kubeconfig(data), 'server: https://127.0.0.1:6443\n', 'never started: the default')
  const plane = await start(data)
  await plane.stop()
  t.match(await kubeconfig(data), `server: ${plane.secure}\n`)
  t.match(await kubeconfig(data, '--server', 'https://api.example:1'), 'server: https://api.example:1\n')
})
