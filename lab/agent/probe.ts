import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { connect } from 'node:net'
import { sleep } from '../../lib/lifecycle.ts'
import type { Container, IntOrString, Probe, ProbeAction } from '../../kube/objects.ts'
import type { ExecResult } from './sandbox.ts'

/** What a probe is tried on. */
export interface ProbeTarget {
  readonly container: Container
  /** The Pod's first address, or the node's for one that lives in its network. */
  readonly address: string
  exec(argv: readonly string[], signal: AbortSignal): Promise<ExecResult>
}

/** Longest part of an answer that is quoted in an event. */
const quoted = 200

/** Tries `probe` once; the reason when it fails, nothing when it succeeds. */
export async function tryProbe(probe: ProbeAction, target: ProbeTarget, timeout: number): Promise<string | undefined> {
  const signal = AbortSignal.timeout(timeout)
  try {
    if (probe.exec !== undefined) {
      const { code, output } = await target.exec(probe.exec.command ?? [], signal)
      return code === 0 ? undefined : `exit status ${code}: ${output.slice(0, quoted).trim()}`
    }
    if (probe.tcpSocket !== undefined) return await tryTcp(probe.tcpSocket.host ?? target.address, portNumber(probe.tcpSocket.port, target.container), signal)
    if (probe.httpGet !== undefined) return await tryHttp(probe.httpGet, target, signal)
    return 'the probe names none of httpGet, tcpSocket and exec'
  } catch (error) {
    return signal.aborted ? `no answer within ${timeout / 1000} s` : error instanceof Error ? error.message : String(error)
  }
}

/** A port given by number or by the name of one of the container's ports. */
export function portNumber(port: IntOrString, container: Container): number {
  if (typeof port === 'number') return port
  const named = container.ports?.find((p) => p.name === port)
  const number = named?.containerPort ?? Number(port)
  if (!Number.isInteger(number) || number < 1 || number > 65_535) throw new Error(`container "${container.name}" has no port called "${port}"`)
  return number
}

function tryTcp(host: string, port: number, signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port })
    socket.once('error', reject)
    signal.addEventListener('abort', () => socket.destroy(new Error('timed out')), { once: true })
    socket.once('connect', () => {
      // A reset tells the server that nothing follows, and leaves no state behind.
      socket.resetAndDestroy()
      resolve(undefined)
    })
  })
}

function tryHttp(get: NonNullable<ProbeAction['httpGet']>, target: ProbeTarget, signal: AbortSignal): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const headers: Record<string, string> = { 'user-agent': 'kube-probe/1.32', accept: '*/*', connection: 'close' }
    for (const { name, value } of get.httpHeaders ?? []) headers[name.toLowerCase()] = value
    const how = { host: get.host ?? target.address, port: portNumber(get.port, target.container), path: get.path ?? '/', headers, agent: false as const, signal, rejectUnauthorized: false }
    const asked = (get.scheme === 'HTTPS' ? httpsRequest : httpRequest)(how, (answer) => {
      const code = answer.statusCode ?? 0
      answer.resume()
      answer.on('error', () => {})
      resolve(code >= 200 && code < 400 ? undefined : `HTTP probe failed with statuscode: ${code}`)
    })
    asked.once('error', reject)
    asked.end()
  })
}

/** Until the first success a readiness probe is tried this often (ms), and less and less often, so that a Pod is ready when it is, not at the next period. */
const eager = 50

/** Runs one probe until `signal` fires. `told` hears every change of mind: nothing for success, a reason for failure. */
export async function runProbe(kind: 'readiness' | 'liveness' | 'startup', probe: Probe, target: ProbeTarget, told: (failure: string | undefined) => void, signal: AbortSignal): Promise<void> {
  const period = (probe.periodSeconds ?? 10) * 1000
  let pause = kind === 'liveness' ? period : Math.min(eager, period)
  let successes = 0
  let failures = 0
  let opinion: boolean | undefined
  let counted = -Infinity
  await sleep((probe.initialDelaySeconds ?? 0) * 1000, signal)
  while (!signal.aborted) {
    const failure = await tryProbe(probe, target, (probe.timeoutSeconds ?? 1) * 1000)
    if (signal.aborted) return
    if (failure === undefined) {
      successes++
      failures = 0
      pause = period
      if (opinion !== true && successes >= (probe.successThreshold ?? 1)) {
        opinion = true
        told(undefined)
      }
      if (kind === 'startup' && opinion === true) return
    } else {
      successes = 0
      // Eager tries do not use up the failures that are allowed.
      if (performance.now() - counted >= period - 1) {
        counted = performance.now()
        failures++
      }
      if (opinion !== false && failures >= (probe.failureThreshold ?? 3)) {
        opinion = false
        told(failure)
      }
    }
    await sleep(pause, signal)
    if (opinion === undefined || pause < period) pause = Math.min(period, pause * 1.5)
  }
}
