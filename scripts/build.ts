// Compiles the project to JavaScript under dist/, for a package: Node runs no TypeScript below node_modules.
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'

const root = join(import.meta.dirname, '..')
const dist = join(root, 'dist')
rmSync(dist, { recursive: true, force: true })
const done = spawnSync(join(root, 'scripts/node'), [join(root, 'node_modules/.bin/tsc'), '-p', join(root, 'tsconfig.build.json')], { stdio: 'inherit' })
if (done.status !== 0) process.exit(1)

/** What programs read beside their code: manifests, scripts, README files of handlers. */
const folders = ['cli', 'lib', 'kube', 'linux', 'proxy', 'ingress', 'dns', 'controlplane', 'lab']
const leftOut = /(^|\/)(testing|testdata|e2e|fake|suite)(\/|$)|\.ts$/
for (const folder of folders) {
  if (!existsSync(join(root, folder))) continue
  for (const entry of readdirSync(join(root, folder), { withFileTypes: true, recursive: true })) {
    const path = join(entry.parentPath, entry.name)
    const name = relative(root, path)
    if (!entry.isFile() || leftOut.test(name)) continue
    mkdirSync(dirname(join(dist, name)), { recursive: true })
    copyFileSync(path, join(dist, name))
  }
}
