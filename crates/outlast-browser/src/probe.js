// Uses what a browser says it has: a drawn pixel, a shader that ran, a context that was made.
(async () => {
  const found = { webgl: null, webgpu: null, fallback: false, webnn: [] };
  try {
    const canvas = document.createElement("canvas");
    const gl = canvas.getContext("webgl2") ?? canvas.getContext("webgl");
    gl.clearColor(0, 1, 0, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    const pixel = new Uint8Array(4);
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
    if (pixel[1] === 255) {
      const info = gl.getExtension("WEBGL_debug_renderer_info");
      found.webgl = String(gl.getParameter(info?.UNMASKED_RENDERER_WEBGL ?? gl.RENDERER));
    }
  } catch {}
  try {
    const adapter = await navigator.gpu.requestAdapter();
    const device = await adapter.requestDevice();
    const size = 4;
    const { STORAGE, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
    const out = device.createBuffer({ size, usage: STORAGE | COPY_SRC });
    const read = device.createBuffer({ size, usage: COPY_DST | MAP_READ });
    const module = device.createShaderModule({
      code: `@group(0) @binding(0) var<storage, read_write> out: u32;
             @compute @workgroup_size(1) fn main() { out = 42u; }`,
    });
    const pipeline = device.createComputePipeline({ layout: "auto", compute: { module, entryPoint: "main" } });
    const layout = pipeline.getBindGroupLayout(0);
    const group = device.createBindGroup({ layout, entries: [{ binding: 0, resource: { buffer: out } }] });
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(1);
    pass.end();
    encoder.copyBufferToBuffer(out, 0, read, 0, size);
    device.queue.submit([encoder.finish()]);
    await read.mapAsync(GPUMapMode.READ);
    if (new Uint32Array(read.getMappedRange())[0] === 42) {
      const { vendor, architecture, description } = adapter.info;
      found.webgpu = [vendor, architecture, description].filter(Boolean).join(" ");
      found.fallback = Boolean(adapter.info.isFallbackAdapter ?? adapter.isFallbackAdapter);
    }
    device.destroy();
  } catch {}
  for (const deviceType of ["cpu", "gpu", "npu"]) {
    try {
      await navigator.ml.createContext({ deviceType });
      found.webnn.push(deviceType);
    } catch {}
  }
  return found;
})()
