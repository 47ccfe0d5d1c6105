// Reads and watches a node, holds a lock and stands for election, until the node says "stop".
//
//     PROTOS="$(zkside protos)" node main.js unix:/run/zkside/zkside.sock my-name
//
// The node is /clients/config, the lock /clients/lock, the election /clients/election.
'use strict';

const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const [address, name] = process.argv.slice(2);
const files = ['node', 'lock', 'election', 'hold', 'watch'].map(file => `zkside/v1/${file}.proto`);
const definition = loader.loadSync(files, {includeDirs: [process.env.PROTOS], longs: String, enums: String, oneofs: true});
const {NodeService, LockService, ElectionService, HoldService, WatchService} = grpc.loadPackageDefinition(definition).zkside.v1;
const plain = grpc.credentials.createInsecure();

const fail = error => {
  console.error(error);
  process.exit(1);
};
const call = (client, method, request) =>
  new Promise((resolve, reject) => client[method](request, (error, answer) => (error ? reject(error) : resolve(answer))));

// Resolves when it is held. Work that relies on it stops at HOLD_STATE_JEOPARDY, or when the lease in the update has
// passed, and hands the fencing token to what it protects. A hold lives as long as its stream.
const held = (what, stream) =>
  new Promise(resolve => {
    stream.on('error', fail);
    stream.on('data', update => {
      if (update.state === 'HOLD_STATE_LOST') fail(new Error(`${what}: lost, ${update.reason}`));
      if (update.state !== 'HOLD_STATE_HELD') return;
      console.log(what, update.hold.fencingToken);
      resolve(update.hold);
    });
  });

async function main() {
  const {node} = await call(new NodeService(address, plain), 'Get', {path: '/clients/config'});
  console.log('read', node.data.toString());
  const lock = await held('lock', new LockService(address, plain).Acquire(
    {path: '/clients/lock', mode: 'LOCK_MODE_EXCLUSIVE', owner: name}));
  await held('leader', new ElectionService(address, plain).Campaign({path: '/clients/election', candidateId: name}));
  const watch = new WatchService(address, plain).Watch(
    {targets: [{path: '/clients/config', scope: 'SCOPE_NODE', withData: true}]});
  for await (const {snapshot, changes} of watch) {
    const nodes = [...(snapshot?.nodes ?? []), ...(changes?.changes ?? []).map(change => change.node)];
    for (const {data} of nodes) {
      console.log('watch', data.toString());
      if (data.toString() === 'stop') {
        await call(new HoldService(address, plain), 'Release', {holdId: lock.holdId});
        console.log('released');
        return;
      }
    }
  }
}

main().then(() => process.exit(0), fail);
