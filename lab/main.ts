import { readFileSync } from 'node:fs'
import { command, UsageError, type Command, type Flags } from '../lib/options.ts'
import { faults } from './chaos.ts'
import { askControl } from './control.ts'
import { exec, runningLab } from './exec.ts'
import { renderStatus, type LabStatus } from './status.ts'
import { modes, parseTopology, topology, type TopologyOptions } from './topology.ts'
import { down, parsePublish, up } from './up.ts'

const labFlag = { lab: { type: 'string', value: 'NAME', help: 'name of the lab; several can be up at once', default: 'default' } } as const satisfies Flags

const upCommand = command({
  name: 'up',
  summary: 'Brings a lab of several nodes up on this machine and leaves it running.',
  flags: {
    ...labFlag,
    filename: { type: 'string', short: 'f', value: 'FILE', help: 'a topology file: nodes with names, zones and modes; flags go before it' },
    nodes: { type: 'number', help: 'how many nodes (default 3)' },
    mode: { type: 'string', help: 'proxy mode (default iptables)', oneOf: modes },
    'dual-stack': { type: 'boolean', help: 'IPv6 beside IPv4' },
    publish: { type: 'list', value: 'PORT:TO', help: 'port of this machine that leads into the lab: 8080:ingress, 8443:ingress-https, 8081:NODE:PORT' },
    'api-port': { type: 'number', help: 'port of the API on 127.0.0.1 (6443, or any if it is taken)' },
    sockets: { type: 'string', help: 'what carries bytes in the parts', oneOf: ['auto', 'epoll', 'node'] },
    vm: { type: 'boolean', help: 'every node is a virtual machine with a kernel of its own (QEMU; no root, no libvirt)' },
    memory: { type: 'number', value: 'MIB', default: 768, help: 'with --vm: memory of each machine, in MiB' },
  },
  run: async ({ values, given }, context) => {
    const began = performance.now()
    const file = values.filename === undefined ? undefined : parseTopology(readFileSync(values.filename, 'utf8'), values.filename)
    const name = given.has('lab') ? values.lab : (file?.name ?? values.lab)
    const chosen = Object.fromEntries(Object.entries({ nodes: values.nodes, mode: values.mode, sockets: values.sockets }).filter(([, v]) => v !== undefined)) as TopologyOptions
    const wanted = topology({ ...file, ...chosen, ...(values['dual-stack'] ? { dualStack: true } : {}), name })
    const how = {
      publish: [...(file?.publish ?? []), ...values.publish].map(parsePublish),
      apiPort: values['api-port'],
      progress: (what: string, ms: number): void => context.err(`  ${seconds(ms).padStart(6)}  ${what}\n`),
      signal: context.signal,
    }
    const lab = values.vm ? await (await import('./qemu/up.ts')).upVm(wanted, { ...how, memory: values.memory }) : await up(wanted, how)
    await lab.stay()
    const flag = name === 'default' ? '' : ` --lab ${name}`
    context.out(`The lab is up: ${wanted.nodes.length} nodes in ${seconds(performance.now() - began)}. API on 127.0.0.1:${lab.record.apiPort}.\n`)
    for (const p of lab.record.published) context.out(`127.0.0.1:${p.port} leads to ${p.to}.\n`)
    context.out(
      `\n  switchyard lab status${flag}\n  kubectl --kubeconfig "$(switchyard lab kubeconfig${flag})" get nodes\n  switchyard lab exec${flag} node1 -- ip route\n  switchyard lab down${flag}\n`,
    )
  },
})

const downCommand = command({
  name: 'down',
  summary: 'Ends the lab; nothing of it is left.',
  flags: labFlag,
  run: async ({ values }, context) => {
    context.out((await down(values.lab)) ? 'The lab is down.\n' : 'There was no lab.\n')
  },
})

const statusCommand = command({
  name: 'status',
  summary: 'Shows the nodes and parts of the lab.',
  flags: { ...labFlag, output: { type: 'string', short: 'o', help: 'table or json', oneOf: ['table', 'json'], default: 'table' } },
  run: async ({ values }, context) => {
    const { record, paths } = runningLab(values.lab)
    const status: LabStatus = {
      name: values.lab,
      api: `https://127.0.0.1:${record.apiPort}`,
      kubeconfig: paths.kubeconfig,
      logs: paths.logs,
      published: record.published,
      ...(await askControl<Pick<LabStatus, 'mode' | 'nodes' | 'parts' | 'broken'>>(paths.control, 'status')),
    }
    context.out(values.output === 'json' ? `${JSON.stringify(status, null, 2)}\n` : renderStatus(status))
    return status.parts.every((p) => p.state === 'ready') ? 0 : 1
  },
})

const execCommand: Command = {
  name: 'exec',
  summary: 'Runs a command on a node, in a Pod (NAMESPACE/NAME or NAME), or "outside" on the LAN.',
  usage: '[--lab NAME] NODE|POD -- CMD…',
  run: async (args) => {
    const stop = args.indexOf('--')
    const [before, argv] = stop < 0 ? [args.slice(0, args[0] === '--lab' ? 3 : 1), args.slice(args[0] === '--lab' ? 3 : 1)] : [args.slice(0, stop), args.slice(stop + 1)]
    let name = 'default'
    const places: string[] = []
    for (let i = 0; i < before.length; i++) {
      const word = before[i]!
      if (word === '--lab') name = before[++i] ?? ''
      else if (word.startsWith('--lab=')) name = word.slice(6)
      else if (word.startsWith('-')) throw new UsageError(`unknown flag ${word}`)
      else places.push(word)
    }
    const [place, ...more] = places
    if (place === undefined || more.length > 0 || argv.length === 0) throw new UsageError('expected NODE|POD -- CMD…')
    return exec(name, place, argv)
  },
}

const kubeconfigCommand = command({
  name: 'kubeconfig',
  summary: "Prints the path of the administrator's kubeconfig.",
  flags: labFlag,
  run: async ({ values }, context) => context.out(`${runningLab(values.lab).paths.kubeconfig}\n`),
})

const modeCommand = command({
  name: 'mode',
  summary: 'Changes the proxy mode of the running lab.',
  usage: modes.join('|'),
  flags: labFlag,
  run: async ({ values, positionals }, context) => {
    const [mode, ...more] = positionals
    if (mode === undefined || more.length > 0 || !(modes as readonly string[]).includes(mode)) throw new UsageError(`expected one of ${modes.join(', ')}`)
    for (const { what, ms } of await askControl<{ what: string; ms: number }[]>(runningLab(values.lab).paths.control, 'mode', { mode })) context.out(`${what} (${seconds(ms)})\n`)
  },
})

const breakCommand: Command = command({
  name: 'break',
  summary: 'Breaks something in the lab.',
  usage: 'KIND TARGET [AMOUNT]',
  flags: labFlag,
  details: `Kinds:\n${faults.map((f) => `  ${`${f.kind} ${f.usage}`.padEnd(26)} ${f.summary}`).join('\n')}\n\n"switchyard lab heal" mends what does not mend itself.`,
  run: async ({ values, positionals }, context) => {
    const [kind, target, amount, ...more] = positionals
    if (kind === undefined || target === undefined || more.length > 0) throw new UsageError('expected KIND TARGET [AMOUNT]')
    await askControl(runningLab(values.lab).paths.control, 'break', { kind, target, amount })
    context.out(`${kind} ${target}: done\n`)
  },
})

const healCommand = command({
  name: 'heal',
  summary: 'Mends what was broken: everything, or what is named.',
  usage: '[KIND [TARGET]]',
  flags: labFlag,
  run: async ({ values, positionals }, context) => {
    const [kind, target] = positionals
    const healed = await askControl<string[]>(runningLab(values.lab).paths.control, 'heal', { kind, target })
    context.out(healed.length === 0 ? 'Nothing was broken.\n' : healed.map((h) => `${h}: mended\n`).join(''))
  },
})

/** Every verb of `switchyard lab`. */
export const labCommand: Command = {
  name: 'lab',
  summary: 'Brings a lab of several nodes up, shows and changes it. As root or as an ordinary user.',
  verbs: [
    upCommand,
    downCommand,
    statusCommand,
    execCommand,
    kubeconfigCommand,
    modeCommand,
    breakCommand,
    healCommand,
    { name: 'capture', summary: 'Shows the packets of a node or a Pod, or writes them to a file.', load: async () => (await import('./capture.ts')).captureCommand },
    { name: 'check', summary: 'Tries everything that should work in the lab, from every node and Pod.', load: async () => (await import('./check.ts')).checkCommand },
    { name: 'compare', summary: 'Measures the proxy modes on this machine and says which to take.', load: async () => (await import('./compare/main.ts')).compareCommand },
    { name: 'doctor', summary: 'Says what this machine lacks for the lab, and how to mend it.', load: async () => (await import('./doctor.ts')).doctorCommand },
    { name: 'graph', summary: 'Draws the running lab as SVG.', load: async () => (await import('./graphcommand.ts')).graphCommand },
    { name: 'view', summary: 'Serves a page of the running lab on 127.0.0.1: what there is, where connections go, and why.', load: async () => (await import('./view/main.ts')).viewCommand },
    { name: 'demo', summary: 'Shows everything working, step by step.', load: async () => (await import('./demo.ts')).demoCommand },
    { name: 'vm', summary: 'Runs a command or a lab in virtual machines with a kernel of their own.', load: async () => (await import('./vm/main.ts')).vm },
    { name: 'hello', summary: 'A small HTTP server that says which Pod answered.', load: async () => (await import('./hello.ts')).helloCommand },
    { name: 'hold-vm', summary: 'Holds the machines of a lab (started by "lab up --vm").', load: async () => (await import('./qemu/holder.ts')).holdVmCommand },
    { name: 'guest', summary: 'Runs inside a machine of a lab (started by "lab up --vm").', load: async () => (await import('./qemu/guest.ts')).guestCommand },
    { name: 'in', summary: 'Runs a command in a machine of a lab (started by "lab exec").', load: async () => (await import('./qemu/exec.ts')).inCommand },
    { name: 'hold', summary: 'Runs inside the holder of a lab (started by "lab up").', load: async () => (await import('./holder/main.ts')).holdCommand },
  ],
}

export { labCommand as command }

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`
}
