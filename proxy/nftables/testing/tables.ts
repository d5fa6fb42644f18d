import { random, type Random } from '../../../lib/random.ts'
import type { Cidr, Ip } from '../../../lib/ip.ts'
import { frontKeyOf } from '../../compile.ts'
import type { Endpoint, Front, Outcome, Route, ServiceTable } from '../../table.ts'
