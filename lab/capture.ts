import { spawn } from 'node:child_process'
import { openSync } from 'node:fs'
import { command, UsageError } from '../lib/options.ts'
import { execArgv, runningLab } from './exec.ts'

/** `switchyard lab capture`: the packets of one place, on the terminal or in a file for Wireshark. */
export const captureCommand = command({
  name: 'capture',
  summary: 'Shows the packets of a node or a Pod, or writes them to a file.',
  usage: 'NODE|POD [-- FILTER…]',
  flags: {
    lab: { type: 'string', value: 'NAME', help: 'name of the lab', default: 'default' },
    write: { type: 'string', short: 'w', value: 'FILE', help: 'write a pcap file instead of lines' },
    interface: { type: 'string', short: 'i', value: 'NAME', help: 'one interface only', default: 'any' },
    count: { type: 'number', short: 'c', help: 'end after so many packets' },
  },
  details: 'FILTER is in the words of pcap-filter(7): switchyard lab capture demo/client -- port 53',
  run: async ({ values, positionals, rest }, context) => {
    const [place, ...more] = positionals
    if (place === undefined || more.length > 0) throw new UsageError('expected NODE|POD [-- FILTER…]')
    const lab = runningLab(values.lab)
    const words = [
      'tcpdump',
      '-n',
      '-i',
      values.interface,
      '--immediate-mode',
      ...(lab.record.rootless ? [] : ['-Z', 'root']),
      ...(values.count === undefined ? [] : ['-c', String(values.count)]),
      ...(values.write === undefined ? ['-l'] : ['-U', '-w', '-']),
      ...rest,
    ]
    const [program, ...args] = await execArgv(lab, place, words)
    const child = spawn(program!, args, { stdio: ['ignore', values.write === undefined ? 'inherit' : openSync(values.write, 'w'), 'inherit'] })
    context.signal.addEventListener('abort', () => child.kill('SIGINT'), { once: true })
    return new Promise((resolve, reject) => {
      child.once('error', reject)
      // Ctrl-C is how a capture ends; that is no failure.
      child.once('exit', (code) => resolve(context.signal.aborted ? 0 : (code ?? 1)))
    })
  },
})
