import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import type { Pod } from '../../kube/objects.ts'
import type { TokenSource } from './tokens.ts'

/** What appears where in a Pod. */
export interface Mount {
  readonly volume: string
  readonly path: string
  readonly readOnly: boolean
}

/** The files of ConfigMaps and Secrets of the Pod's namespace, as bytes; undefined if there is none. */
export interface VolumeSources {
  configMap(name: string): Promise<Readonly<Record<string, Buffer>> | undefined>
  secret(name: string): Promise<Readonly<Record<string, Buffer>> | undefined>
  token(source: TokenSource): Promise<string>
  field(path: string): string
}

interface FileSource {
  readonly name?: string
  readonly secretName?: string
  readonly optional?: boolean
  readonly defaultMode?: number
  readonly items?: readonly { readonly key: string; readonly path: string; readonly mode?: number }[]
}

interface Projection {
  readonly configMap?: FileSource
  readonly secret?: FileSource
  readonly serviceAccountToken?: TokenSource
  readonly downwardAPI?: { readonly items?: readonly { readonly path: string; readonly fieldRef?: { readonly fieldPath: string } }[] }
}

/** Fills `folder` with a folder for each volume, and says what is mounted where. Throws with a sentence about what cannot be had here. */
export async function makeVolumes(pod: Pod, folder: string, sources: VolumeSources): Promise<readonly Mount[]> {
  const wanted = new Map<string, Mount>()
  for (const container of [...(pod.spec.initContainers ?? []), ...pod.spec.containers]) {
    for (const m of container.volumeMounts ?? []) {
      if (m.subPath !== undefined) throw new Error(`container "${container.name}": volumeMounts with subPath are not known here`)
      const path = normalize(m.mountPath)
      const before = wanted.get(path)
      // All containers of a Pod see one file system.
      if (before !== undefined && before.volume !== m.name) throw new Error(`two volumes are mounted at ${path}: ${before.volume} and ${m.name}; the containers of a Pod share their file system here`)
      wanted.set(path, { volume: m.name, path, readOnly: m.readOnly === true && before?.readOnly !== false })
    }
  }
  const used = new Set([...wanted.values()].map((m) => m.volume))
  for (const volume of pod.spec.volumes ?? []) {
    if (!used.has(volume.name)) continue
    const at = join(folder, volume.name)
    if ('emptyDir' in volume) mkdirSync(at, { recursive: true, mode: 0o777 })
    else if ('configMap' in volume) await files(at, 'ConfigMap', volume.configMap as FileSource, sources)
    else if ('secret' in volume) await files(at, 'Secret', volume.secret as FileSource, sources)
    else if ('projected' in volume) {
      mkdirSync(at, { recursive: true })
      for (const s of (volume.projected as { readonly sources?: readonly Projection[] }).sources ?? []) {
        if (s.configMap !== undefined) await files(at, 'ConfigMap', s.configMap, sources)
        else if (s.secret !== undefined) await files(at, 'Secret', s.secret, sources)
        else if (s.serviceAccountToken !== undefined) write(at, s.serviceAccountToken.path ?? 'token', await sources.token(s.serviceAccountToken))
        else if (s.downwardAPI !== undefined) {
          for (const { path, fieldRef } of s.downwardAPI.items ?? []) {
            if (fieldRef === undefined) throw new Error(`volume "${volume.name}": downwardAPI knows only fieldRef here`)
            write(at, path, sources.field(fieldRef.fieldPath))
          }
        } else throw new Error(`volume "${volume.name}": the projected source ${Object.keys(s).join(', ')} is not known here`)
      }
    } else
      throw new Error(
        `volume "${volume.name}": ${Object.keys(volume)
          .filter((k) => k !== 'name')
          .join(', ')} is not known here; there are emptyDir, configMap, secret and projected`,
      )
  }
  for (const name of used) if (!(pod.spec.volumes ?? []).some((v) => v.name === name)) throw new Error(`volumeMounts: there is no volume "${name}"`)
  return [...wanted.values()]
}

/** Writes a file below `at`, wherever `path` points. */
function write(at: string, path: string, bytes: string | Buffer, mode = 0o644): void {
  const file = join(at, normalize(join('/', path)))
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, bytes, { mode })
}

async function files(at: string, kind: 'ConfigMap' | 'Secret', source: FileSource, sources: VolumeSources): Promise<void> {
  const name = source.name ?? source.secretName ?? ''
  const data = kind === 'ConfigMap' ? await sources.configMap(name) : await sources.secret(name)
  mkdirSync(at, { recursive: true })
  if (data === undefined) {
    if (source.optional === true) return
    throw new Error(`${kind} "${name}" not found`)
  }
  const items = source.items ?? Object.keys(data).map((key) => ({ key, path: key, mode: undefined }))
  for (const { key, path, mode } of items) {
    const bytes = data[key]
    if (bytes === undefined) {
      if (source.optional === true) continue
      throw new Error(`${kind} "${name}" has no key "${key}"`)
    }
    write(at, path, bytes, mode ?? source.defaultMode)
  }
}
