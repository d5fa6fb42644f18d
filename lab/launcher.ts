import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The folder that holds the launcher `switchyard`: of a checkout, or of an installed package. */
export const projectRoot = findRoot()

/** The launcher: how a user, and so the lab, starts a part. Tests put another in its place. */
export const launcher = process.env.SWITCHYARD_LAUNCHER ?? join(projectRoot, 'switchyard')

function findRoot(): string {
  let dir = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(dir, 'switchyard')) || !existsSync(join(dir, 'package.json'))) {
    const up = dirname(dir)
    if (up === dir) throw new Error(`cannot find the launcher "switchyard" above ${fileURLToPath(import.meta.url)}`)
    dir = up
  }
  return dir
}
