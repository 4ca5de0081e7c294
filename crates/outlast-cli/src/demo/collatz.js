// How many steps all numbers below 65536 take to reach 1 by Collatz' rule, counted on the GPU in
// 64 parts; a checkpoint every 8 parts.
async (task) => {
  const PARTS = 64, SIZE = 1024;
  const device = await (await navigator.gpu.requestAdapter()).requestDevice();
  const module = device.createShaderModule({
    code: `@group(0) @binding(0) var<storage, read_write> n: array<u32>;
           @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
             var x = n[id.x]; var steps = 0u;
             while (x > 1u) { x = select(x / 2u, 3u * x + 1u, (x & 1u) == 1u); steps++; }
             n[id.x] = steps;
           }`,
  });
  const pipeline = device.createComputePipeline({ layout: "auto", compute: { module, entryPoint: "main" } });
  const { STORAGE, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
  const numbers = device.createBuffer({ size: 4 * SIZE, usage: STORAGE | COPY_SRC | COPY_DST });
  const result = device.createBuffer({ size: 4 * SIZE, usage: COPY_DST | MAP_READ });
  const group = device.createBindGroup({
    layout: pipeline.getBindGroupLayout(0),
    entries: [{ binding: 0, resource: { buffer: numbers } }],
  });
  let { part, total } = (await task.restore()) ?? { part: 0, total: 0 };
  console.log(`begins after part ${part}`);
  for (; part < PARTS; ) {
    device.queue.writeBuffer(numbers, 0, Uint32Array.from({ length: SIZE }, (_, i) => part * SIZE + i));
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(SIZE / 64);
    pass.end();
    encoder.copyBufferToBuffer(numbers, 0, result, 0, 4 * SIZE);
    device.queue.submit([encoder.finish()]);
    await result.mapAsync(GPUMapMode.READ);
    total += new Uint32Array(result.getMappedRange()).reduce((a, b) => a + b);
    result.unmap();
    part += 1;
    console.log(`part ${part}`);
    task.progress(part / PARTS);
    if (part % 8 === 0) await task.checkpoint({ part, total });
    await new Promise((go) => setTimeout(go, 50)); // for those who watch
  }
  return { total };
}
