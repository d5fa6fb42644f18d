import { test } from 'tap'
import { endpointslices, pods } from '../../kube/resources.ts'
import { node, pod, service } from '../../kube/testing/builders.ts'
import { underEachWrong } from '../../kube/testing/wrongs.ts'
import { silent } from '../../lib/log.ts'
import { binder } from './binder.ts'
import { endpointSliceController } from './endpointslices.ts'
import { startControllers } from './main.ts'

const labels = { app: 'web' }
const web = service('demo/web', { selector: labels, ports: [80] })
const a = pod('demo/a', { ip: '10.244.1.2', node: 'n1', labels })
const b = pod('demo/b', { ip: '10.244.1.3', node: 'n1', labels })

void test('controllers under each wrong of the API', async (t) => {
  underEachWrong(t, 'slices and bindings', {
    before: [node('n1'), web, a, b],
    async start({ client, api, signal }) {
      await startControllers({ client, log: silent, signal, only: [endpointSliceController, binder], options: { clusterCIDRs: [], serviceCIDRs: [] } })
      const said = (): string =>
        api
          .all(endpointslices)
          .map((s) =>
            s.endpoints
              .map((e) => `${e.addresses[0]}${e.conditions?.ready === true ? '' : ' unready'}`)
              .sort()
              .join(),
          )
          .join('|')
      return {
        settled: () => said() === '10.244.1.2,10.244.1.3',
        changed: () => said() === '10.244.1.3 unready,10.244.1.4' && api.read(pods, 'demo/new')?.spec.nodeName === 'n1',
        serving: () => said() !== '',
      }
    },
    change(api) {
      api.remove(a)
      api.put(pod('demo/b', { ip: '10.244.1.3', node: 'n1', labels, ready: false }))
      api.put(pod('demo/c', { ip: '10.244.1.4', node: 'n1', labels }))
      api.put(pod('demo/new'))
    },
  })
})
