import { writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { connect } from '../kube/client.ts'
import { loadCredentials } from '../kube/credentials.ts'
import { Closers } from '../lib/lifecycle.ts'
import { createLog, explainError, type Log } from '../lib/log.ts'
import { command as build, parse, UsageError, type Parsed, type Values } from '../lib/options.ts'
import { listenStatus } from '../lib/status.ts'
import type { Kernel } from '../linux/kernel.ts'
import { openNetlink } from '../linux/netlink/socket.ts'
import { realKernel } from '../linux/real.ts'
import { modeNamed, modes, others, type BackendTools } from './backends.ts'
import { configuration, configurationText, readConfig } from './config.ts'
import { removeKubeProxy } from './iptables/kubeproxy.ts'
import { NodeProxy } from './nodeproxy.ts'
import { flags, idleFlags, proxyOptions, type ProxyOptions } from './options.ts'
import { setSwitches } from './sysctls.ts'

/** `switchyard proxy`. */
export const command = build({
  name: 'proxy',
  summary: 'Runs the service proxy of a node: connections to Services reach their endpoints.',
  flags,
  details: `Modes:\n${modes.map((m) => `  ${m.name.padEnd(10)} ${m.summary}`).join('\n')}`,
  run: async (given, { signal }) => {
    const log = createLog()
    const values = await withFile(given, log)
    const idle = [...given.given].filter((name) => idleFlags.has(name))
    if (idle.length > 0) log.warn('flags of kube-proxy that mean nothing here', { flags: idle.map((name) => `--${name}`) })
    const target = values['write-config-to']
    if (target !== undefined) {
      await writeFile(target, configurationText(values, hostname().toLowerCase()))
      log.info('configuration written', { file: target })
      return 0
    }
    const options = proxyOptions(values, hostname().toLowerCase())
    const kernel = realKernel({ iptables: options.iptablesVariant, openNetlink })
    const otherIptables = async (): Promise<Kernel> => realKernel({ iptables: (await kernel.iptables(4).variant()) === 'legacy' ? 'nf_tables' : 'legacy' })
    const tools: BackendTools = { kernel, log, options, otherIptables }
    if (values.cleanup) return cleanup(tools, values['cleanup-kube-proxy'])
    if (values['init-only']) return setSwitches(options, kernel, log)
    await run(options, tools, { replaces: values['cleanup-kube-proxy'], configuration: configuration(values, hostname().toLowerCase()) }, signal)
    return 0
  },
})

/** The flags given, and for the others what `--config` says. */
async function withFile(given: Parsed<typeof flags>, log: Log): Promise<Values<typeof flags>> {
  const path = given.values.config
  if (path === undefined) return given.values
  const { flags: fromFile, warnings } = await readConfig(path)
  for (const warning of warnings) log.warn(warning)
  const aliases: Readonly<Record<string, readonly string[]>> = {
    mode: ['mode', 'proxy-mode'],
    node: ['node', 'hostname-override'],
    'healthz-bind-address': ['healthz-bind-address', 'status'],
    'metrics-bind-address': ['metrics-bind-address', 'status'],
  }
  const more = fromFile.filter(([name]) => !(aliases[name] ?? [name]).some((n) => given.given.has(n)))
  let file: Parsed<typeof flags>
  try {
    file = parse(
      flags,
      more.map(([name, value]) => `--${name}=${value}`),
    )
  } catch (error) {
    throw error instanceof UsageError ? new UsageError(`${path}: ${error.message.replace(/^flag --/, '')}`) : error
  }
  const values: Record<string, unknown> = { ...file.values }
  for (const name of given.given) values[name] = given.values[name as keyof typeof given.values]
  if (!given.given.has('external-ip-ranges')) {
    // Whoever comes from kube-proxy has them served; only a range of ours narrows it.
    log.warn('external IPs are served wherever they are, as kube-proxy does: whoever may write Services can take any address (CVE-2020-8554); --external-ip-ranges narrows it')
    values['external-ip-ranges'] = ['any']
  }
  return values as Values<typeof flags>
}

async function cleanup(tools: BackendTools, kubeProxy: boolean): Promise<number> {
  let status = 0
  if (kubeProxy) {
    for (const problem of await removeKubeProxy(tools.kernel, new AbortController().signal)) {
      tools.log.error('could not remove what kube-proxy left', { error: problem })
      status = 1
    }
  }
  for await (const mode of others(tools)) {
    try {
      const backend = await mode.load()
      await backend.cleanup()
      await backend.close()
    } catch (error) {
      tools.log.error('could not clean up', { mode: mode.name, error: explainError(error) })
      status = 1
    }
  }
  return status
}

async function run(
  options: ProxyOptions,
  tools: BackendTools,
  { replaces, configuration: config }: { readonly replaces: boolean; readonly configuration: unknown },
  signal: AbortSignal,
): Promise<void> {
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
    await setSwitches(options, kernel, log)
    const proxy = new NodeProxy(options, tools, backend, client)
    const [health, metrics] = options.status
    const paths = {
      '/healthz': proxy.health.handler('healthz', (code) => proxy.measures.healthz.add(1, { code: String(code) })),
      '/livez': proxy.health.handler('livez', (code) => proxy.measures.livez.add(1, { code: String(code) })),
    }
    const ready = (): string | undefined => (proxy.health.healthy ? undefined : 'no rules were written yet, or not in time')
    for (const at of [health, metrics, ...options.status.slice(2)]) {
      if (at === undefined) continue
      const server = await listenStatus(at, {
        metrics: proxy.measures.metrics,
        ready,
        paths: {
          ...paths,
          '/proxyMode': () => ({ code: 200, body: options.mode }),
          '/configz': () => ({ code: 200, body: JSON.stringify({ 'kubeproxy.config.k8s.io': config }), type: 'application/json' }),
        },
      })
      closers.add('the status listener', () => server.close())
    }
    await proxy.run(signal, () => {
      log.info('ready', { mode: mode.name, node: options.node, status: options.status.map((s) => `${s.host}:${s.port}`) })
      giveBack()
      if (replaces) void removeKubeProxy(kernel, signal).then((problems) => problems.forEach((error) => log.warn('could not remove what kube-proxy left', { error })))
    })
  } finally {
    await closers.close(log)
  }
}

/** Everything the API has passed through memory once, as text; what is kept of it is a tenth. Left alone, the heap would stay as large as it was then. */
function giveBack(): void {
  setFlagsFromString('--expose-gc')
  const gc = runInNewContext('gc') as (how: { readonly type: 'major'; readonly flavor: 'last-resort' }) => void
  setTimeout(() => gc({ type: 'major', flavor: 'last-resort' }), 500).unref()
}
