import { spawn } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { sleep } from '../../lib/lifecycle.ts'
import { run } from './processes.ts'
import type { MeasureKey } from './stats.ts'
import { answers, ask, endpoints, vip, type World } from './world.ts'

export type Values = Partial<Record<MeasureKey, number>>

/** How hard, and how long. */
export interface Strength {
  /** Whole seconds of one load. */
  readonly seconds: number
  readonly connections: number
}

/** wrk's own figures as JSON; its text rounds them. */
const lua = `done = function(s, l, r)
  local e = s.errors
  io.write(string.format('\\nJSON{"requests":%d,"us":%d,"errors":%d,"p":[%d,%d,%d,%d]}\\n', s.requests, s.duration, e.connect + e.read + e.write + e.status + e.timeout, l:percentile(50), l:percentile(90), l:percentile(99), l:percentile(99.9)))
end
`

interface Wrk {
  readonly requests: number
  readonly us: number
  readonly errors: number
  readonly p: readonly number[]
  readonly cpu: Cpu
}

/** Runs wrk in the client's network against `url`, and counts the machine's CPU meanwhile. */
export async function wrk(how: Strength, url: string, ...headers: readonly string[]): Promise<Wrk> {
  const script = '/run/compare/wrk.lua'
  writeFileSync(script, lua)
  const words = ['-t1', `-c${how.connections}`, `-d${how.seconds}s`, '-s', script, ...headers.flatMap((h) => ['-H', h]), url]
  const before = cpuNow()
  const text = await run('ip', ['netns', 'exec', 'client', 'wrk', ...words])
  const cpu = since(before)
  const found = /^JSON(.*)$/m.exec(text)
  if (found === null) throw new Error(`wrk printed no figures: ${text.trim()}`)
  return { ...(JSON.parse(found[1]!) as Omit<Wrk, 'cpu'>), cpu }
}

/** Kept-alive requests, then new connections, each at a port of its own, through the Service or (with `direct`) past it. */
export async function requests(how: Strength, url: () => Promise<string>): Promise<{ readonly values: Values; readonly errors: number }> {
  const kept = await wrk(how, await url())
  const fresh = await wrk(how, await url(), 'Connection: close')
  const [p50, p90, p99, p999] = kept.p.map((us) => us / 1000)
  const each = (cpu: number, w: Wrk): number => (cpu * 1e6) / Math.max(1, w.requests)
  return {
    errors: kept.errors + fresh.errors,
    values: {
      requests: kept.requests / (kept.us / 1e6),
      connections: fresh.requests / (fresh.us / 1e6),
      ...{ p50: p50!, p90: p90!, p99: p99!, p999: p999! },
      ...{ requestUser: each(kept.cpu.user, kept), requestKernel: each(kept.cpu.kernel, kept), requestSoftirq: each(kept.cpu.softirq, kept) },
      ...{ connectionUser: each(fresh.cpu.user, fresh), connectionKernel: each(fresh.cpu.kernel, fresh), connectionSoftirq: each(fresh.cpu.softirq, fresh) },
    },
  }
}

interface IperfEnd {
  readonly end: {
    readonly sum_received?: { readonly bits_per_second: number }
    readonly sum?: { readonly packets: number; readonly lost_packets: number; readonly seconds: number }
  }
}

/** Bytes in bulk: one stream, eight, and datagrams as fast as they go, to the endpoint by `at`. What does not come through is left out. */
export async function bulk(how: Strength, at: Where): Promise<Values> {
  // A server of its own: one that lost its client in the middle of a test takes no other.
  const server = spawn('ip', ['netns', 'exec', 'pod', 'iperf3', '-s', '-p', String(at.serverPort)], { stdio: 'ignore' })
  try {
    const iperf = async (...words: readonly string[]): Promise<IperfEnd['end'] | undefined> => {
      // It takes one client after the other, and needs a moment to start and between two.
      for (let tries = 0; tries < 10; tries++) {
        try {
          const text = await run('ip', [
            'netns',
            'exec',
            'client',
            'timeout',
            String(how.seconds + 4),
            'iperf3',
            '-J',
            '-c',
            at.host,
            '-p',
            String(at.port),
            '--connect-timeout',
            '1000',
            '-t',
            String(how.seconds),
            ...words,
          ])
          return (JSON.parse(text) as IperfEnd).end
        } catch (error) {
          if (!/refused|busy|timed out|unable to connect/i.test(String(error))) return undefined
          await sleep(100)
        }
      }
      return undefined
    }
    const one = await iperf()
    const many = await iperf('-P', '8')
    const udp = await iperf('-u', '-b', '0', '-l', '512')
    const rate = (e: IperfEnd['end'] | undefined, key: MeasureKey): Values => (e?.sum_received === undefined ? {} : { [key]: e.sum_received.bits_per_second / 1e9 })
    return { ...rate(one, 'stream'), ...rate(many, 'streams'), ...(udp?.sum === undefined ? {} : { datagrams: (udp.sum.packets - udp.sum.lost_packets) / udp.sum.seconds }) }
  } finally {
    server.kill('SIGKILL')
  }
}

/** The way to the endpoint's iperf3, and the port it listens on there. */
export interface Where {
  readonly host: string
  readonly port: number
  readonly serverPort: number
}

/** From the API's answer to a change to the first packet that follows it. The first change after quiet is written at once; this one shall be it. */
export async function change(world: World): Promise<number> {
  await sleep(300)
  const next = await world.fresh()
  await world.point(next)
  const from = performance.now()
  await answers(next)
  return performance.now() - from
}

/** One of two endpoints dies; the control plane hears of it a moment later. How many connections are lost, and how long after the news the last one. */
export async function failing(world: World): Promise<Values> {
  const port = await world.fresh(endpoints[0])
  await world.point(port)
  await answers(port)
  let ended = false
  let lost = 0
  let asked = 0
  let last = 0
  const work = async (): Promise<void> => {
    while (!ended) {
      asked++
      if ((await ask()) === undefined) {
        lost++
        last = performance.now()
      }
      // A steady rate, so that a slow mode does not lose less by asking less.
      await sleep(10)
    }
  }
  const workers = Array.from({ length: 4 }, work)
  await sleep(100)
  await world.fail(port, endpoints[1])
  await sleep(250)
  await world.point(port, [endpoints[0]])
  const told = performance.now()
  while (performance.now() - Math.max(told, last) < 300 && performance.now() - told < 10_000) await sleep(20)
  ended = true
  await Promise.all(workers)
  return { failed: lost, heal: Math.max(0, last - told) }
}

/** Seconds of CPU, of the whole machine. */
interface Cpu {
  readonly user: number
  readonly kernel: number
  readonly softirq: number
  readonly idle: number
}

/** The kernel's count (proc_pid_stat(5): a tick is 10 ms). */
function cpuNow(): Cpu {
  const [user, nice, system, idle, iowait, irq, softirq] = readFileSync('/proc/stat', 'utf8').split('\n')[0]!.trim().split(/\s+/).slice(1).map(Number)
  return { user: (user! + nice!) / 100, kernel: system! / 100, softirq: (irq! + softirq!) / 100, idle: (idle! + iowait!) / 100 }
}

function since(before: Cpu): Cpu {
  const now = cpuNow()
  return { user: now.user - before.user, kernel: now.kernel - before.kernel, softirq: now.softirq - before.softirq, idle: now.idle - before.idle }
}

/** The share of the processors that somebody uses now. */
export async function busy(): Promise<number> {
  const before = cpuNow()
  await sleep(1000)
  const { user, kernel, softirq, idle } = since(before)
  return (user + kernel + softirq) / Math.max(0.01, user + kernel + softirq + idle)
}

/** Where the Service is. */
export const service = { host: vip, port: 80 } as const
