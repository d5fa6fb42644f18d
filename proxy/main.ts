import { hostname } from 'node:os'
import { connect } from '../kube/client.ts'
import { loadCredentials } from '../kube/credentials.ts'
import { Closers } from '../lib/lifecycle.ts'
import { createLog, explainError, type Log } from '../lib/log.ts'
import { command as build, UsageError } from '../lib/options.ts'
import { listenStatus } from '../lib/status.ts'
import type { Kernel } from '../linux/kernel.ts'
import { openNetlink } from '../linux/netlink/socket.ts'
import { realKernel } from '../linux/real.ts'
import { modeNamed, modes, type BackendTools } from './backends.ts'
import { NodeProxy } from './nodeproxy.ts'
import { flags, proxyOptions, type ProxyOptions } from './options.ts'

/** `switchyard proxy`. */
export const command = build({
  name: 'proxy',
  summary: 'Runs the service proxy of a node: connections to Services reach their endpoints.',
  flags,
  details: `Modes:\n${modes.map((m) => `  ${m.name.padEnd(10)} ${m.summary}`).join('\n')}`,
  run: async ({ values }, { signal }) => {
    const options = proxyOptions(values, hostname().toLowerCase())
    const log = createLog()
    const kernel = realKernel({ iptables: options.iptablesVariant, openNetlink })
    const tools: BackendTools = { kernel, log, options }
    if (values.cleanup) return cleanup(tools)
    await run(options, tools, signal)
    return 0
  },
})

async function cleanup(tools: BackendTools): Promise<number> {
  let status = 0
  for (const mode of modes) {
    try {
      const backend = await mode.load(tools)
      await backend.cleanup()
      await backend.close()
    } catch (error) {
      tools.log.error('could not clean up', { mode: mode.name, error: explainError(error) })
      status = 1
    }
  }
  return status
}

async function run(options: ProxyOptions, tools: BackendTools, signal: AbortSignal): Promise<void> {
  const { log, kernel } = tools
  const closers = new Closers()
  try {
    const mode = modeNamed(options.mode)
    if (mode === undefined) throw new UsageError(`mode ${options.mode} is not in this build; there are ${modes.map((m) => m.name).join(', ')}`)
    const backend = await mode.load(tools)
    closers.add('the backend', () => backend.close())
    const why = await backend.probe()
    if (why !== undefined) throw new Error(`mode ${mode.name} cannot work here: ${why}`)
    const client = connect(await loadCredentials(options.kubeconfig), { userAgent: 'switchyard-proxy' })
    closers.add('connections to the API server', () => client.close())
    await prepareKernel(kernel, log)
    const proxy = new NodeProxy(options, tools, backend, client)
    const [health, metrics] = options.status
    const paths = {
      '/healthz': proxy.health.handler('healthz', (code) => proxy.measures.healthz.add(1, { code: String(code) })),
      '/livez': proxy.health.handler('livez', (code) => proxy.measures.livez.add(1, { code: String(code) })),
    }
    const ready = (): string | undefined => (proxy.health.healthy ? undefined : 'no rules were written yet, or not in time')
    for (const at of [health, metrics, ...options.status.slice(2)]) {
      if (at === undefined) continue
      const server = await listenStatus(at, { metrics: proxy.measures.metrics, ready, paths: { ...paths, '/proxyMode': () => ({ code: 200, body: options.mode }) } })
      closers.add('the status listener', () => server.close())
    }
    await proxy.run(signal, () => log.info('ready', { mode: mode.name, node: options.node, status: options.status.map((s) => `${s.host}:${s.port}`) }))
  } finally {
    await closers.close(log)
  }
}

/** Turns forwarding on: without it nothing passes from an interface to another. */
async function prepareKernel(kernel: Kernel, log: Log): Promise<void> {
  for (const [name, value, optional] of [
    ['net.ipv4.ip_forward', '1', false],
    ['net.ipv6.conf.all.forwarding', '1', true],
  ] as const) {
    try {
      if ((await kernel.sysctl.get(name)) !== value) await kernel.sysctl.set(name, value)
    } catch (error) {
      if (!optional) log.warn('could not turn forwarding on', { sysctl: name, error: explainError(error) })
    }
  }
}
