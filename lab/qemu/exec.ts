import { command, UsageError } from '../../lib/options.ts'
import { askControl } from '../control.ts'
import { ask, type Door } from './client.ts'

/** `switchyard lab in SOCKET PLACE -- CMD`: runs a command in a machine of a lab with this program's own input and output. `lab exec` starts it; nobody types it. */
export const inCommand = command({
  name: 'in',
  summary: 'Runs a command in a machine of a lab (started by "switchyard lab exec").',
  flags: {},
  run: async ({ positionals, rest }) => {
    const [control, place] = positionals
    if (control === undefined || place === undefined || rest.length === 0) throw new UsageError('expected SOCKET PLACE -- CMD…')
    const { door, pod } = await askControl<{ readonly door: Door; readonly pod?: string }>(control, 'machine', { name: place })
    const term = process.env.TERM === undefined ? {} : { TERM: process.env.TERM }
    const { status } = await ask(door, { run: rest, pod, env: term }, { stdin: process.stdin, stdout: (b) => void process.stdout.write(b), stderr: (b) => void process.stderr.write(b) })
    process.stdin.unref?.()
    process.exit(status)
  },
})
