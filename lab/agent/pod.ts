import type { ChildProcess } from 'node:child_process'
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Container, Pod, PodStatus } from '../../kube/objects.ts'
import { Doorbell } from '../../lib/doorbell.ts'
import { explainError, type Log } from '../../lib/log.ts'
import { sleep } from '../../lib/lifecycle.ts'
import { expand } from './environment.ts'
import { hostnameOf } from './files.ts'
import { runProbe, tryProbe, type ProbeTarget } from './probe.ts'
import type { Process, Runtime } from './sandbox.ts'
import { podStatus, type ContainerFacts, type PodFacts } from './status.ts'

/** What a Pod needs of the agent around it. */
export interface PodHost {
  readonly runtime: Runtime
  readonly hostIPs: readonly string[]
  readonly log: Log
  /** Addresses for a new Pod; rejects when there are none (yet). */
  addresses(pod: Pod): Promise<readonly string[]>
  connect(pod: Pod, pid: number, addresses: readonly string[]): Promise<void>
  /** Writes `etc/` and `volumes/` of the Pod into `folder`, and says what is mounted where. */
  files(pod: Pod, addresses: readonly string[], folder: string): Promise<readonly { readonly volume: string; readonly path: string; readonly readOnly: boolean }[]>
  environment(pod: Pod, container: Container, addresses: readonly string[]): Promise<Readonly<Record<string, string>>>
  report(pod: Pod, status: PodStatus): Promise<void>
  /** Takes the object out of the API: every process has ended. */
  remove(pod: Pod): Promise<void>
  event(pod: Pod, type: 'Normal' | 'Warning', reason: string, message: string): void
}

/** A container as it is kept on disk, so that an agent that starts again finds what runs. */
interface Kept {
  readonly name: string
  restarts: number
  /** Undefined before the first start. */
  run: Process | undefined
  began: number
  exited: { code: number; ended: number } | undefined
  last: { code: number; began: number; ended: number } | undefined
  /** Failures in a row, for the back-off. */
  failures: number
}

interface Saved {
  readonly namespace: string
  readonly name: string
  readonly uid: string
  readonly hostNetwork: boolean
  pid: number
  began: string
  addresses: readonly string[]
  env: Readonly<Record<string, string>>
  startTime: number
  containers: Kept[]
}

/** Back-off of a container that keeps ending, as the kubelet's: at once, then 10 s doubled up to 5 minutes; a run of 10 minutes starts it over. Milliseconds. */
const firstWait = 10_000
const mostWait = 300_000
const healthyRun = 600_000
const secondsOfGrace = 30
/** Adopted processes are nobody's children: they are looked at this often (ms). */
const look = 1000

/** Runs one Pod from its first container to its end. */
export class PodWorker {
  readonly uid: string
  readonly ended: Promise<void>
  readonly #folder: string
  readonly #host: PodHost
  readonly #signal: AbortSignal
  readonly #bell = new Doorbell()
  readonly #live = new Map<string, { ready: boolean; started: boolean; waiting: { reason: string; message?: string } | undefined; probes: AbortController | undefined }>()
  #pod: Pod
  #saved: Saved | undefined
  #failed: { reason: string; message: string } | undefined
  #gone = false
  #done = false
  #reported = ''
  #terminating = false
  #terminated = false
  #retry = 0

  /** `folder` is the Pod's own; what an earlier agent left there is taken up again. When `signal` fires the worker ends and the Pod goes on. */
  constructor(pod: Pod, folder: string, host: PodHost, signal: AbortSignal) {
    this.#pod = pod
    this.uid = pod.metadata.uid ?? ''
    this.#folder = folder
    this.#host = host
    this.#signal = signal
    this.#saved = readSaved(folder)
    this.#bell.ring()
    this.ended = this.#loop()
  }

  /** The newest form of the object. */
  update(pod: Pod): void {
    this.#pod = pod
    this.#bell.ring()
  }

  /** The object is gone from the API: nothing is left to be polite for. */
  gone(): void {
    this.#gone = true
    this.#bell.ring()
  }

  get pod(): Pod {
    return this.#pod
  }

  get addresses(): readonly string[] {
    return this.#saved?.addresses ?? []
  }

  get sandbox(): Process | undefined {
    return this.#saved === undefined || this.#saved.pid === 0 ? undefined : { pid: this.#saved.pid, began: this.#saved.began }
  }

  /** The log of a container's present run, or of the one before, and whether it is still being written. */
  logOf(container: string, previous: boolean): { readonly file: string; readonly running: () => boolean } | undefined {
    const kept = this.#saved?.containers.find((c) => c.name === container)
    if (kept === undefined || (kept.run === undefined && kept.last === undefined)) return undefined
    const run = kept.restarts - (previous ? 1 : 0)
    return run < 0 ? undefined : { file: this.#logFile(container, run), running: () => !previous && !this.#done && kept.restarts === run && kept.exited === undefined }
  }

  /** Runs a program beside a container's own; a sentence if that is not possible now. */
  async attach(name: string, argv: readonly string[], tty: boolean): Promise<ChildProcess | string> {
    const container = [...(this.#pod.spec.initContainers ?? []), ...this.#pod.spec.containers].find((c) => c.name === name)
    const kept = this.#saved?.containers.find((c) => c.name === name)
    const { sandbox } = this
    if (container === undefined || kept?.run === undefined || kept.exited !== undefined || sandbox === undefined || this.#done) return `container not found ("${name}")`
    const env = await this.#host.environment(this.#pod, container, this.addresses)
    return this.#host.runtime.attach(sandbox, { argv, env, workingDir: container.workingDir ?? '/', tty })
  }

  async #loop(): Promise<void> {
    while (!this.#done && !this.#signal.aborted) {
      const timer = setTimeout(() => this.#bell.ring(), look)
      await this.#bell.wait(this.#signal)
      clearTimeout(timer)
      if (this.#signal.aborted) break
      try {
        await this.#step()
        await this.#report()
        this.#retry = 0
      } catch (error) {
        if (this.#signal.aborted) break
        this.#retry = Math.min(Math.max(250, this.#retry * 2), 10_000)
        this.#host.log.warn('a Pod is tried again', { pod: this.#name, error: explainError(error), after: this.#retry })
        await sleep(this.#retry, this.#signal)
        this.#bell.ring()
      }
    }
    for (const live of this.#live.values()) live.probes?.abort()
  }

  get #name(): string {
    return `${this.#pod.metadata.namespace}/${this.#pod.metadata.name}`
  }

  async #step(): Promise<void> {
    this.#notice()
    if (this.#gone) {
      if (this.sandbox !== undefined) await this.#host.runtime.destroy(this.sandbox)
      this.#forget()
      return
    }
    if (this.#pod.metadata.deletionTimestamp !== undefined) {
      if (!this.#terminating) {
        this.#terminating = true
        // Beside the loop, which goes on reporting.
        void this.#terminate()
          .catch((error: unknown) => this.#host.log.warn('a Pod did not end in order', { pod: this.#name, error: explainError(error) }))
          .finally(() => {
            this.#terminated = true
            this.#bell.ring()
          })
      }
      if (!this.#terminated) return
      if (this.sandbox !== undefined) await this.#host.runtime.destroy(this.sandbox)
      this.#notice()
      await this.#report()
      await this.#host.remove(this.#pod)
      this.#forget()
      return
    }
    const phase = this.#pod.status?.phase
    if (phase === 'Succeeded' || phase === 'Failed' || this.#failed !== undefined) {
      if (this.sandbox !== undefined && this.#host.runtime.alive(this.sandbox)) await this.#host.runtime.destroy(this.sandbox)
      return
    }
    const deadline = this.#pod.spec.activeDeadlineSeconds
    if (deadline !== undefined && this.#saved !== undefined && Date.now() > this.#saved.startTime + deadline * 1000) {
      await this.#stopAll(this.#grace())
      this.#failed = { reason: 'DeadlineExceeded', message: 'Pod was active on the node longer than the specified deadline' }
      return
    }
    if (this.sandbox === undefined || !this.#host.runtime.alive(this.sandbox)) await this.#sandbox()
    for (const container of this.#pod.spec.initContainers ?? []) {
      const kept = this.#kept(container.name)
      if (kept.exited?.code === 0) continue
      await this.#keepRunning(container, kept, this.#pod.spec.restartPolicy === 'Never' ? 'Never' : 'OnFailure')
      return
    }
    for (const container of this.#pod.spec.containers) await this.#keepRunning(container, this.#kept(container.name), this.#pod.spec.restartPolicy ?? 'Always')
    const { phase: now } = podStatus(this.#pod, this.#facts(), Date.now())
    if (now === 'Succeeded' || now === 'Failed') await this.#host.runtime.destroy(this.sandbox!)
  }

  /** Sees which runs have ended. */
  #notice(): void {
    for (const kept of this.#saved?.containers ?? []) {
      if (kept.run === undefined || kept.exited !== undefined) continue
      const exit = this.#host.runtime.exited(kept.run, this.#runFolder(kept.name))
      if (exit === undefined) {
        if (this.#live.get(kept.name)?.probes === undefined) this.#watch(kept)
        continue
      }
      kept.exited = exit
      kept.failures = exit.ended - kept.began > healthyRun ? 1 : kept.failures + 1
      this.#stopWatching(kept.name)
      this.#save()
    }
  }

  /** Makes the Pod's namespaces, with the addresses it had if it had some. */
  async #sandbox(): Promise<void> {
    const pod = this.#pod
    const host = pod.spec.hostNetwork === true
    const before = this.#saved
    try {
      const addresses = host ? this.#host.hostIPs : before !== undefined && before.addresses.length > 0 ? before.addresses : await this.#host.addresses(pod)
      mkdirSync(this.#folder, { recursive: true, mode: 0o700 })
      this.#saved = before ?? {
        namespace: pod.metadata.namespace ?? '',
        name: pod.metadata.name,
        uid: this.uid,
        hostNetwork: host,
        pid: 0,
        began: '',
        addresses,
        env: {},
        startTime: Date.now(),
        containers: [],
      }
      this.#saved.addresses = addresses
      this.#save()
      const mounts = await this.#host.files(pod, addresses, this.#folder)
      const made = await this.#host.runtime.create({ folder: this.#folder, hostname: host ? undefined : hostnameOf(pod), mounts }, async (pid) => {
        if (!host) await this.#host.connect(pod, pid, addresses)
      })
      this.#saved.pid = made.pid
      this.#saved.began = made.began
      this.#save()
    } catch (error) {
      this.#host.event(pod, 'Warning', 'FailedCreatePodSandBox', explainError(error))
      for (const c of pod.spec.containers) this.#liveOf(c.name).waiting = { reason: 'ContainerCreating' }
      await this.#report()
      throw error
    }
  }

  /** Starts the container if it does not run, as its restart policy and back-off allow. */
  async #keepRunning(container: Container, kept: Kept, policy: 'Always' | 'OnFailure' | 'Never'): Promise<void> {
    if (kept.run !== undefined && kept.exited === undefined) return
    const live = this.#liveOf(container.name)
    if (kept.exited !== undefined) {
      if (policy === 'Never' || (policy === 'OnFailure' && kept.exited.code === 0)) return
      const wait = kept.failures <= 1 ? 0 : Math.min(mostWait, firstWait * 2 ** (kept.failures - 2))
      const left = kept.exited.ended + wait - Date.now()
      if (left > 0) {
        if (live.waiting?.reason !== 'CrashLoopBackOff') this.#host.event(this.#pod, 'Warning', 'BackOff', `Back-off restarting failed container ${container.name} in pod ${this.#pod.metadata.name}`)
        live.waiting = { reason: 'CrashLoopBackOff', message: `back-off ${Math.round(wait / 1000)}s restarting failed container=${container.name} pod=${this.#name}` }
        return
      }
    }
    const refuse = (reason: string, message: string): void => {
      if (live.waiting?.reason !== reason || live.waiting.message !== message) this.#host.event(this.#pod, 'Warning', 'Failed', `Error: ${message}`)
      live.waiting = { reason, message }
    }
    if (container.command === undefined || container.command.length === 0) {
      refuse('CreateContainerError', `container "${container.name}" has no command: this node runs processes, not images, so spec.containers[].command has to say what to run`)
      return
    }
    let env: Readonly<Record<string, string>>
    try {
      env = await this.#host.environment(this.#pod, container, this.addresses)
    } catch (error) {
      refuse('CreateContainerConfigError', explainError(error))
      return
    }
    if (kept.exited !== undefined) {
      kept.last = { ...kept.exited, began: kept.began }
      kept.restarts++
      kept.exited = undefined
    }
    const argv = [...container.command, ...(container.args ?? [])].map((word) => expand(word, env))
    const folder = this.#runFolder(container.name)
    mkdirSync(folder, { recursive: true })
    rmSync(this.#logFile(container.name, kept.restarts - 2), { force: true })
    kept.began = Date.now()
    kept.run = await this.#host.runtime.start(this.sandbox!, { folder, argv, env, workingDir: container.workingDir ?? '/', log: this.#logFile(container.name, kept.restarts) }, () => this.#bell.ring())
    live.waiting = undefined
    if (container === this.#pod.spec.containers[0]) this.#saved!.env = env
    this.#save()
    this.#host.event(this.#pod, 'Normal', 'Started', `Started container ${container.name}`)
    this.#watch(kept)
  }

  /** Begins the probes of a container that runs. */
  #watch(kept: Kept): void {
    const container = [...(this.#pod.spec.initContainers ?? []), ...this.#pod.spec.containers].find((c) => c.name === kept.name)
    if (container === undefined) return
    const live = this.#liveOf(kept.name)
    const ended = new AbortController()
    this.#signal.addEventListener('abort', () => ended.abort(), { once: true, signal: ended.signal })
    live.probes = ended
    live.started = container.startupProbe === undefined
    live.ready = live.started && container.readinessProbe === undefined
    const target: ProbeTarget = {
      container,
      address: this.addresses[0] ?? this.#host.hostIPs[0] ?? '127.0.0.1',
      exec: async (argv, signal) => this.#host.runtime.exec(this.sandbox!, argv, await this.#host.environment(this.#pod, container, this.addresses), signal),
    }
    const kill = (kind: string, why: string): void => {
      this.#host.event(this.#pod, 'Warning', 'Unhealthy', `${kind} probe failed: ${why}`)
      this.#host.event(this.#pod, 'Normal', 'Killing', `Container ${kept.name} failed ${kind.toLowerCase()} probe, will be restarted`)
      void this.#stopOne(kept, this.#grace())
    }
    const afterStart = (): void => {
      if (container.readinessProbe !== undefined)
        void runProbe(
          'readiness',
          container.readinessProbe,
          target,
          (failure) => {
            live.ready = failure === undefined
            if (failure !== undefined) this.#host.event(this.#pod, 'Warning', 'Unhealthy', `Readiness probe failed: ${failure}`)
            this.#bell.ring()
          },
          ended.signal,
        )
      else live.ready = true
      if (container.livenessProbe !== undefined) void runProbe('liveness', container.livenessProbe, target, (failure) => (failure === undefined ? undefined : kill('Liveness', failure)), ended.signal)
    }
    if (container.startupProbe === undefined) afterStart()
    else
      void runProbe(
        'startup',
        container.startupProbe,
        target,
        (failure) => {
          if (failure !== undefined) return kill('Startup', failure)
          live.started = true
          afterStart()
          this.#bell.ring()
        },
        ended.signal,
      )
  }

  #stopWatching(name: string): void {
    const live = this.#liveOf(name)
    live.probes?.abort()
    live.probes = undefined
    live.ready = false
    live.started = false
  }

  /** Ends what runs, politely; resolves when nothing runs any more. */
  async #terminate(): Promise<void> {
    const { deletionTimestamp, deletionGracePeriodSeconds } = this.#pod.metadata
    const grace = Math.max(0, Math.min((deletionGracePeriodSeconds ?? secondsOfGrace) * 1000, new Date(deletionTimestamp!).getTime() - Date.now() + 999))
    if (this.#running().length > 0) for (const kept of this.#running()) this.#host.event(this.#pod, 'Normal', 'Killing', `Stopping container ${kept.name}`)
    await this.#stopAll(grace)
  }

  async #stopAll(grace: number): Promise<void> {
    await Promise.all(this.#running().map((kept) => this.#stopOne(kept, grace)))
  }

  async #stopOne(kept: Kept, grace: number): Promise<void> {
    const run = kept.run
    if (run === undefined || kept.exited !== undefined) return
    const over = (): boolean => kept.run !== run || kept.exited !== undefined || this.#host.runtime.exited(run, this.#runFolder(kept.name)) !== undefined
    const until = performance.now() + grace
    if (grace > 0) {
      const hook = this.#pod.spec.containers.find((c) => c.name === kept.name)?.lifecycle?.preStop
      if (hook !== undefined) await this.#hook(hook, kept.name, grace)
      this.#host.runtime.signal(run, 'SIGTERM')
      // Short at first: most programs end at once.
      for (let wait = 5; !over() && performance.now() < until && !this.#signal.aborted; wait = Math.min(200, wait * 1.5))
        await sleep(Math.min(wait, Math.max(1, until - performance.now())), this.#signal)
    }
    for (let tries = 0; !over() && tries < 200 && !this.#signal.aborted; tries++) {
      this.#host.runtime.signal(run, 'SIGKILL')
      await sleep(10, this.#signal)
    }
    this.#bell.ring()
  }

  async #hook(hook: NonNullable<NonNullable<Container['lifecycle']>['preStop']>, name: string, grace: number): Promise<void> {
    if (hook.sleep !== undefined) return sleep(Math.min(grace, hook.sleep.seconds * 1000), this.#signal)
    const container = this.#pod.spec.containers.find((c) => c.name === name)!
    const failure = await tryProbe(
      hook,
      {
        container,
        address: this.addresses[0] ?? '127.0.0.1',
        exec: async (argv, signal) => this.#host.runtime.exec(this.sandbox!, argv, await this.#host.environment(this.#pod, container, this.addresses), signal),
      },
      grace,
    )
    if (failure !== undefined) this.#host.event(this.#pod, 'Warning', 'FailedPreStopHook', `PreStopHook failed: ${failure}`)
  }

  #grace(): number {
    return (this.#pod.spec.terminationGracePeriodSeconds ?? secondsOfGrace) * 1000
  }

  #running(): readonly Kept[] {
    return (this.#saved?.containers ?? []).filter((c) => c.run !== undefined && c.exited === undefined)
  }

  async #report(): Promise<void> {
    if (this.#done || this.#gone) return
    const status = podStatus(this.#pod, this.#facts(), Date.now())
    const text = JSON.stringify(status)
    if (text === this.#reported) return
    await this.#host.report(this.#pod, status)
    this.#reported = text
  }

  #facts(): PodFacts {
    const facts = (container: Container): ContainerFacts => {
      const kept = this.#saved?.containers.find((c) => c.name === container.name)
      const live = this.#live.get(container.name)
      const base = {
        name: container.name,
        restarts: kept?.restarts ?? 0,
        id: kept?.run === undefined ? undefined : `switchyard://${this.uid}/${container.name}/${kept.restarts}`,
        ready: kept?.run !== undefined && kept.exited === undefined && live?.ready === true,
        started: kept?.run !== undefined && kept.exited === undefined && live?.started === true,
      }
      if (kept?.exited !== undefined) {
        const ended = { code: kept.exited.code, began: kept.began, ended: kept.exited.ended }
        return live?.waiting === undefined ? { ...base, state: { kind: 'exited', ...ended }, last: kept.last } : { ...base, state: { kind: 'waiting', ...live.waiting }, last: ended }
      }
      if (kept?.run !== undefined) return { ...base, state: { kind: 'running', since: kept.began }, last: kept.last }
      const waiting = live?.waiting ?? { reason: (this.#pod.spec.initContainers ?? []).length > 0 ? 'PodInitializing' : 'ContainerCreating' }
      return { ...base, state: { kind: 'waiting', ...waiting } }
    }
    return {
      addresses: this.addresses,
      hostIPs: this.#host.hostIPs,
      startTime: this.#saved?.startTime,
      init: (this.#pod.spec.initContainers ?? []).map(facts),
      containers: this.#pod.spec.containers.map(facts),
      failed: this.#failed,
    }
  }

  #kept(name: string): Kept {
    let kept = this.#saved!.containers.find((c) => c.name === name)
    if (kept === undefined) this.#saved!.containers.push((kept = { name, restarts: 0, run: undefined, began: 0, exited: undefined, last: undefined, failures: 0 }))
    return kept
  }

  #liveOf(name: string) {
    let live = this.#live.get(name)
    if (live === undefined) this.#live.set(name, (live = { ready: false, started: false, waiting: undefined, probes: undefined }))
    return live
  }

  #runFolder(name: string): string {
    return join(this.#folder, 'containers', name)
  }

  #logFile(name: string, run: number): string {
    return join(this.#runFolder(name), `${run}.log`)
  }

  #save(): void {
    writeFileSync(join(this.#folder, 'pod.json.new'), JSON.stringify(this.#saved), { mode: 0o600 })
    renameSync(join(this.#folder, 'pod.json.new'), join(this.#folder, 'pod.json'))
  }

  #forget(): void {
    rmSync(this.#folder, { recursive: true, force: true })
    this.#done = true
  }
}

/** What an earlier agent knew of the Pod in `folder`. */
export function readSaved(folder: string): Saved | undefined {
  try {
    return JSON.parse(readFileSync(join(folder, 'pod.json'), 'utf8')) as Saved
  } catch {
    return undefined
  }
}
