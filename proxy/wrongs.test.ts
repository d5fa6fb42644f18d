import { test } from 'tap'
import { node, service, slice } from '../kube/testing/builders.ts'
import { underEachWrong } from '../kube/testing/wrongs.ts'
import { silent } from '../lib/log.ts'
import { parse } from '../lib/options.ts'
import { FakeKernel } from '../linux/fake/kernel.ts'
import { IptablesBackend } from './iptables/backend.ts'
import { NodeProxy } from './nodeproxy.ts'
import { flags, proxyOptions } from './options.ts'

const kept = [service('demo/kept', { clusterIP: '10.96.0.1' }), slice('demo/kept', ['10.244.0.1'], [8080])]
const gone = [service('demo/gone', { clusterIP: '10.96.0.2' }), slice('demo/gone', ['10.244.0.2'], [8080])]
const come = [service('demo/come', { clusterIP: '10.96.0.3' }), slice('demo/come', ['10.244.0.3'], [8080])]

void test('the proxy under each wrong of the API', async (t) => {
  underEachWrong(t, 'what the kernel forwards', {
    before: [node('n1'), ...kept, ...gone],
    start({ client, signal }) {
      const kernel = new FakeKernel()
      const options = proxyOptions(parse(flags, ['--node', 'n1', '--mode', 'iptables', '--service-cidr', '10.96.0.0/16', '--min-sync-period', '10ms']).values, 'n1')
      const proxy = new NodeProxy(options, { kernel, log: silent, options }, new IptablesBackend({ kernel, log: silent }), client)
      const ended = proxy.run(signal, () => {}).catch(() => {})
      const rules = (): Promise<string> => kernel.iptables(4).save(['nat'])
      const targets = async (ip: string): Promise<string> =>
        [...(await rules()).matchAll(new RegExp(`-d ${ip}/32 .*--to-destination (\\S+)`, 'g'))]
          .map((m) => m[1]!)
          .sort()
          .join()
      return {
        settled: async () => (await targets('10.96.0.1')) === '10.244.0.1:8080' && (await targets('10.96.0.2')) === '10.244.0.2:8080',
        changed: async () => (await targets('10.96.0.1')) === '10.244.0.1:8080,10.244.0.9:8080' && (await targets('10.96.0.3')) === '10.244.0.3:8080' && !(await rules()).includes('10.96.0.2/32'),
        serving: async () => (await targets('10.96.0.1')).includes('10.244.0.1:8080'),
        ended,
      }
    },
    change(api) {
      for (const o of gone) api.remove(o)
      api.putAll(come)
      api.put(slice('demo/kept', ['10.244.0.1', '10.244.0.9'], [8080]))
    },
  })
})
