import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { closeSync, openSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { launcher } from '../launcher.ts'
import { beginning, makeState, readRecord, recordForm, removeState, statePaths, writeRecord, type LabRecord } from '../state.ts'
import type { Topology } from '../topology.ts'
import { launched, type Up } from '../lifeline.ts'
import { publishTarget, usualApiPort, type UpOptions } from '../up.ts'
import { lacking } from '../vm/kernel.ts'
import type { VmOrder } from './holder.ts'

/** Brings the lab up as machines of QEMU: no root, no libvirt. Their network is a card to the host in user mode and a cable over loopback multicast. */
export async function upVm(topology: Topology, options: UpOptions & { readonly memory: number }): Promise<Up> {
  const paths = statePaths(topology.name)
  if (readRecord(paths) !== undefined) throw new Error(`the lab "${topology.name}" is up already; "switchyard lab down" ends it`)
  const reason = await lacking()
  if (reason !== undefined) throw new Error(reason)
  for (const [what, given] of [
    ['network', topology.network !== 'bridge'],
    ['clients', topology.clients.length > 0],
    ['uplink', topology.uplink !== undefined],
  ] as const)
    if (given) throw new Error(`a lab of virtual machines has one cable and nobody else on it: leave out "${what}"`)
  const apiPort = await free('127.0.0.1', options.apiPort ?? usualApiPort, options.apiPort === undefined, '--api-port')
  const forwards = topology.nodes.map((): { host: string; from: number; to: number }[] => [])
  forwards[0]!.push({ host: '127.0.0.1', from: apiPort, to: topology.apiPort })
  const published: { port: number; to: string }[] = []
  for (const p of options.publish) {
    const to = publishTarget(topology, p.to)
    const [address, port] = [to.slice(0, to.lastIndexOf(':')), Number(to.slice(to.lastIndexOf(':') + 1))]
    const index = topology.nodes.findIndex((n) => n.address === address)
    if (index < 0) throw new Error(`--publish: ${address} is no node; in a lab of virtual machines a port leads to one`)
    const from = await free(p.host, p.port, p.orAny === true, '--publish')
    forwards[index]!.push({ host: p.host, from, to: port })
    published.push({ port: from, to })
  }
  const secret = randomBytes(24).toString('hex')
  const machines: VmOrder['machines'][number][] = []
  for (const list of forwards) machines.push({ door: { port: await free('127.0.0.1', 0, false, ''), secret }, forwards: list })
  makeState(paths)
  const log = openSync(join(paths.logs, 'holder.log'), 'a')
  const child = spawn(launcher, ['lab', 'hold-vm'], { detached: true, cwd: '/', stdio: ['ignore', log, log, 'pipe'] })
  closeSync(log)
  try {
    return await launched(child, {
      paths,
      program: 'the holder',
      progress: options.progress,
      signal: options.signal,
      order: async (pid, line) => {
        const record: LabRecord = { form: recordForm, topology, pid, began: beginning(pid) ?? '', rootless: process.getuid?.() !== 0, machines: true, apiPort, published }
        writeRecord(paths, record)
        line.write(`${JSON.stringify({ topology, paths, apiPort, machines, memory: options.memory } satisfies VmOrder)}\n`)
        return record
      },
    })
  } catch (error) {
    removeState(paths)
    throw error
  }
}

/** A port that nobody listens on; QEMU takes it a moment later. */
async function free(host: string, port: number, orAny: boolean, flag: string): Promise<number> {
  const server = createServer()
  try {
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen({ host, port, exclusive: true }, resolve))
  } catch (error) {
    if (orAny && (error as NodeJS.ErrnoException).code === 'EADDRINUSE') return free(host, 0, false, flag)
    throw new Error(`cannot listen on ${host}:${port} for ${flag}; choose another with ${flag}`, { cause: error })
  }
  const { port: found } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return found
}
