import { mkdtempSync, rmSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sleep } from '../../lib/lifecycle.ts'
import { projectRoot } from '../launcher.ts'
import type { LabStatus } from '../status.ts'
import { switchyard, type Ran } from './host.ts'

/** A lab for tests, with a state folder of its own. */
export class TestLab {
  readonly state = mkdtempSync(join(tmpdir(), 'switchyard-e2e-'))
  readonly #env: Readonly<Record<string, string>> = { SWITCHYARD_STATE: this.state }
  #kubeconfig = ''

  /** `switchyard lab …`. */
  lab(...words: string[]): Promise<Ran> {
    return switchyard(['lab', ...words], { env: this.#env })
  }

  /** `switchyard …` as the administrator. */
  cli(...words: string[]): Promise<Ran> {
    return switchyard(words, { env: { ...this.#env, KUBECONFIG: this.#kubeconfig } })
  }

  get kubeconfig(): string {
    return this.#kubeconfig
  }

  async up(...words: string[]): Promise<void> {
    const ran = await this.lab('up', '--api-port', '0', ...words)
    if (ran.status !== 0) throw new Error(`lab up failed: ${ran.stderr}`)
    this.#kubeconfig = (await this.lab('kubeconfig')).stdout.trim()
  }

  /** Applies the demonstration's objects and waits until its Pods are ready. */
  async hello(): Promise<void> {
    const ran = await this.cli('apply', '-f', join(projectRoot, 'lab', 'manifests', 'hello.yaml'))
    if (ran.status !== 0) throw new Error(`apply failed: ${ran.stderr}`)
    await eventually('every Pod is ready', async () => {
      const { stdout } = await this.cli('get', 'pods', '-n', 'demo', '-o', 'json')
      const { items } = JSON.parse(stdout) as { items: { status: { conditions?: { type: string; status: string }[] } }[] }
      return items.length === 3 && items.every((p) => p.status.conditions?.some((c) => c.type === 'Ready' && c.status === 'True'))
    })
  }

  async status(): Promise<LabStatus> {
    return JSON.parse((await this.lab('status', '-o', 'json')).stdout) as LabStatus
  }

  /** The node a Pod runs on. */
  async nodeOf(pod: string): Promise<string> {
    return (JSON.parse((await this.cli('get', 'pod', pod, '-n', 'demo', '-o', 'json')).stdout) as { spec: { nodeName: string } }).spec.nodeName
  }

  /** What `curl URL` says in the Pod `client`, `times` times. */
  async curl(url: string, times = 1): Promise<readonly string[]> {
    const { stdout, stderr } = await this.lab('exec', 'demo/client', '--', 'sh', '-c', `i=0; while [ $i -lt ${times} ]; do curl -sS -m 3 ${url} || echo; i=$((i+1)); done 2>&1`)
    return (stdout + stderr).trim().split('\n')
  }

  async down(): Promise<void> {
    await this.lab('down')
    rmSync(this.state, { recursive: true, force: true })
  }
}

/** Waits until `claim` holds, for half a minute at most unless it is known to take longer: the machine may be busy. */
export async function eventually(what: string, claim: () => Promise<boolean | undefined>, ms = 30_000): Promise<void> {
  let last: unknown
  for (const until = performance.now() + ms; performance.now() < until; await sleep(100)) {
    try {
      if ((await claim()) === true) return
      last = undefined
    } catch (error) {
      last = error
    }
  }
  throw new Error(`${what}: not within ${ms / 1000} s`, { cause: last })
}

/** One request to a published port: `200 body`, or `0 reason`. */
export function ask(port: number, host: string, path = '/', timeout = 10_000): Promise<string> {
  return new Promise((resolve) => {
    const asked = request({ host: '127.0.0.1', port, path, headers: { host }, agent: false, timeout }, (answer) => {
      let body = ''
      answer.setEncoding('utf8').on('data', (text: string) => (body += text))
      answer.on('end', () => resolve(`${answer.statusCode} ${body}`))
      answer.on('error', (error) => resolve(`0 ${error.message}`))
    })
    asked.on('timeout', () => asked.destroy(new Error(`no answer within ${timeout} ms`)))
    asked.on('error', (error) => resolve(`0 ${error.message}`))
    asked.end()
  })
}
