import { acl } from './acl/index.ts'
import { autopath } from './autopath/index.ts'
import { hosts } from './hosts/index.ts'
import { log } from './log/index.ts'
import { rewrite } from './rewrite/index.ts'
import { timeouts } from './timeouts/index.ts'
import { tls } from './tls/index.ts'
import { any } from './any/index.ts'
import { bind } from './bind/index.ts'
import { bufsize } from './bufsize/index.ts'
import { cache } from './cache/index.ts'
import { debug } from './debug/index.ts'
import { errors } from './errors/index.ts'
import { forward } from './forward/index.ts'
import { health } from './health/index.ts'
import { kubernetes } from './kubernetes/index.ts'
import { loadbalance } from './loadbalance/index.ts'
import { loop } from './loop/index.ts'
import { prometheus } from './metrics/index.ts'
import type { Plugin } from './plugin.ts'
import { ingress } from './ingress/index.ts'
import { metadata } from './metadata/index.ts'
import { ready } from './ready/index.ts'
import { reload } from './reload/index.ts'
import { template } from './template/index.ts'
import { view } from './view/index.ts'

/** Every word of a Corefile, in the order in which handlers are asked, whatever the order in the file. */
export const plugins: readonly Plugin[] = [
  bind,
  view,
  metadata,
  timeouts,
  tls,
  debug,
  reload,
  bufsize,
  health,
  ready,
  prometheus,
  errors,
  log,
  any,
  acl,
  loadbalance,
  rewrite,
  autopath,
  ingress,
  cache,
  template,
  hosts,
  kubernetes,
  loop,
  forward,
]
