import { join } from 'node:path'
import { VagrantLab, vagrantLacking } from '../lab/vagrant/up.ts'
import { projectRoot } from '../lab/launcher.ts'
import { inVm, vmLacking, type VmOptions } from '../lab/vm/run.ts'
import { ofRounds, type BenchContext, type Row } from './row.ts'

/** What a virtual machine costs, and what IPVS costs in one. */
export async function* rows(context: BenchContext): AsyncGenerator<Row> {
  const lacking = await vmLacking()
  if (lacking !== undefined) {
    context.progress(lacking)
    context.missing('qemu')
    return
  }
  const vm = (command: readonly string[], options: VmOptions = {}) => inVm(command, { said: context.progress, signal: context.signal, ...options })
  const script = (file: string, ...args: string[]): string[] => ['sh', join(projectRoot, 'scripts/node'), join(projectRoot, file), ...args]
  if (context.wants('lab vm -- true, round trip')) {
    await vm(['true'])
    const took: number[] = []
    for (let i = 0; i < 5; i++) {
      context.progress(`lab vm -- true, ${i + 1} of 5`)
      took.push((await vm(['true'])).wall / 1000)
    }
    yield ofRounds('lab vm -- true, round trip', 's', took, { bar: { of: 'figure', value: 4 } })
  }
  if (context.wants('instructions counted, spread of two runs')) {
    const counted: number[] = []
    for (let i = 0; i < 2; i++) {
      context.progress(`--instructions, ${i + 1} of 2`)
      counted.push((await vm(['sh', '-c', 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'], { instructions: true })).guest)
    }
    yield { name: 'instructions counted, spread of two runs', ours: (Math.abs(counted[0]! - counted[1]!) / counted[0]!) * 100, unit: '%', bar: { of: 'figure', value: 1 } }
  }
  if (context.wants('vagrant up, three machines from a built box')) {
    const without = await vagrantLacking()
    if (without !== undefined) {
      context.progress(without)
      context.missing('vagrant')
    } else {
      const lab = await VagrantLab.open({}, context.progress)
      try {
        await lab.vagrant('destroy', '-f')
        yield { name: 'vagrant up, three machines from a built box', ours: (await lab.vagrant('up')).took / 1000, unit: 's', bar: { of: 'figure', value: 150 } }
      } finally {
        await lab.close()
      }
    }
  }
  if (context.wants('ipvs, 10,000 × 2 cold, in the machine')) {
    const took: number[] = []
    for (let i = 0; i < 3; i++) {
      context.progress(`ipvs cold start, ${i + 1} of 3`)
      const { stdout, stderr, status } = await vm(script('proxy/ipvs/testing/cold.ts'))
      if (status !== 0) throw new Error(`the cold start ended with ${status}: ${stderr}`)
      took.push(Number(stdout) / 1000)
    }
    yield ofRounds('ipvs, 10,000 × 2 cold, in the machine', 's', took, { bar: { of: 'figure', value: 6 } })
  }
}
