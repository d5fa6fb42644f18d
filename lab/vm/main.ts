import { cpus } from 'node:os'
import { command, UsageError } from '../../lib/options.ts'
import { guestKernel, lacking } from './kernel.ts'
import { inVm } from './run.ts'

/** `switchyard lab vm -- CMD…` */
export const vm = command({
  name: 'vm',
  summary: "runs a command as root under Debian's kernel, over this machine's files, in a virtual machine",
  usage: '[flags] -- CMD…',
  details: `The machine reads this machine's files; what it writes is gone when it ends. It needs no privilege, only QEMU (apt-get install --no-install-recommends qemu-system-x86).
The first call downloads the kernel package (never installs it) into ~/.cache/switchyard/vm.`,
  flags: {
    cores: { type: 'number', default: Math.min(2, cpus().length), help: 'processors' },
    memory: { type: 'number', value: 'MIB', default: 1024, help: 'memory in MiB' },
    timeout: { type: 'duration', default: '10m', help: 'switch the machine off after this long; the status is then 124' },
    instructions: { type: 'boolean', help: 'let the clock count instructions, a nanosecond each: figures repeat within 1 %' },
    accelerator: { type: 'string', oneOf: ['auto', 'kvm', 'emulated'], default: 'auto', help: 'auto takes KVM only after it was seen to boot' },
    update: { type: 'boolean', help: 'fetch the newest kernel package first' },
    verbose: { type: 'boolean', short: 'v', help: 'print the kernel, the seconds and the guest time at the end' },
  },
  run: async ({ values, rest }, context) => {
    if (rest.length === 0) throw new UsageError('nothing to run: put the command after --')
    const reason = await lacking()
    if (reason !== undefined) {
      context.err(`switchyard lab vm: ${reason}\n`)
      return 125
    }
    const said = (what: string): void => context.err(`switchyard lab vm: ${what}\n`)
    if (values.update) await guestKernel(said, true)
    try {
      const result = await inVm(rest, {
        cores: values.cores,
        memory: values.memory,
        timeout: values.timeout,
        instructions: values.instructions,
        accelerator: values.accelerator as 'auto' | 'kvm' | 'emulated',
        stdout: (b) => void process.stdout.write(b),
        stderr: (b) => void process.stderr.write(b),
        said,
        signal: context.signal,
      })
      if (values.verbose || values.instructions) {
        const took = values.instructions ? `${result.guest} instructions` : `${(result.guest / 1e9).toFixed(2)} s inside`
        said(`Linux ${result.kernel}, ${result.accelerator === 'kvm' ? 'KVM' : 'software emulation'}, ${(result.wall / 1000).toFixed(1)} s, ${took}`)
      }
      return result.status
    } catch (error) {
      if (context.signal.aborted) return 130
      context.err(`switchyard lab vm: ${error instanceof Error ? error.message : String(error)}\n`)
      return /switched off after/.test(String(error)) ? 124 : 125
    }
  },
})
