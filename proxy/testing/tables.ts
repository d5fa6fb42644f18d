import type { EndpointSlice, Service } from '../../kube/objects.ts'
import type { Cidr } from '../../lib/ip.ts'
import { compile, type CompileOptions } from '../compile.ts'
import type { ServiceTable } from '../table.ts'
import { flows, nodes, optionSets, type OptionsName } from './flows.ts'

/** The seed of this run: `TEST_SEED`, else by the clock. Print it. */
export function seedNow(): number {
  const text = process.env.TEST_SEED ?? String(Date.now() % 1_000_000)
  const number = Number(text)
  if (Number.isFinite(number)) return number
  let hash = 0
  for (const c of text) hash = (Math.imul(hash, 31) + c.charCodeAt(0)) | 0
  return hash >>> 0
}

/**
 * A table drawn by `random`: some of the flows' Services as they are, some with other endpoints, and a herd of plain ones, under
 * options that seldom change.
 */
export function randomTable(random: () => number, options: CompileOptions = randomOptions(random)): ServiceTable {
  const services = new Set<Service>()
  const slices = new Set<EndpointSlice>()
  const density = random()
  for (const flow of flows) {
    if (random() > density) continue
    const emptied = random() < 0.2
    for (const o of flow.given) {
      if (!('addressType' in o)) services.add(o)
      else if (!emptied) slices.add(random() < 0.3 ? changed(o, random) : o)
    }
  }
  const herd = Math.floor(random() ** 3 * 120)
  for (let i = 0; i < herd; i++) {
    const name = `herd-${i}`
    const ip = `172.30.${100 + Math.floor(random() * 4)}.${Math.floor(random() * 256)}`
    services.add({
      metadata: { name, namespace: 'herd' },
      spec: {
        clusterIP: ip,
        clusterIPs: [ip],
        ports: [{ port: 80 }, { name: 'more', port: 81 + Math.floor(random() * 3), protocol: random() < 0.5 ? 'TCP' : 'UDP' }],
        sessionAffinity: random() < 0.1 ? 'ClientIP' : 'None',
      },
    })
    const count = Math.floor(random() ** 4 * 50)
    slices.add({
      metadata: { name, namespace: 'herd', labels: { 'kubernetes.io/service-name': name } },
      addressType: 'IPv4',
      ports: [{ port: 8080 }],
      endpoints: Array.from({ length: count }, (_, k) => ({ addresses: [`10.180.2.${k + 1}`], nodeName: 'there' })),
    })
  }
  return compile({ services, slices, nodes }, options).table
}

function randomOptions(random: () => number): CompileOptions {
  const names = Object.keys(optionSets) as OptionsName[]
  const name = random() < 0.7 ? 'usual' : names[Math.floor(random() * names.length)]!
  return { ...optionSets[name], ...(random() < 0.1 ? { serviceCidrs: ['172.30.0.0/17' as Cidr] } : {}) }
}

function changed(slice: EndpointSlice, random: () => number): EndpointSlice {
  const kept = slice.endpoints.filter(() => random() < 0.6)
  return { ...slice, endpoints: random() < 0.5 ? kept : [...kept].reverse() }
}
