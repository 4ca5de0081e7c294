import { defineConfig } from "vite";

// Built for the coordinator's binary: four files with names that stay, no source maps, nothing
// inline. `make dashboard-check` builds again and compares, so the result must not vary.
export default defineConfig({
  base: "./",
  publicDir: "public",
  esbuild: { jsx: "automatic", jsxImportSource: "preact", legalComments: "none" },
  build: {
    outDir: "dist",
    target: "es2022",
    sourcemap: false,
    assetsInlineLimit: 0,
    modulePreload: false,
    cssCodeSplit: false,
    reportCompressedSize: false,
    rollupOptions: {
      output: {
        entryFileNames: "app.js",
        assetFileNames: "app[extname]",
        inlineDynamicImports: true,
      },
    },
  },
  plugins: [
    {
      // The page is at /dashboard, its files below that; relative, so that a proxy may put a
      // prefix in front.
      name: "addresses",
      enforce: "post",
      transformIndexHtml: (html) =>
        html.replace(/(src|href)="\.\/(?!dashboard\/)/g, '$1="dashboard/').replaceAll(" crossorigin", ""),
    },
  ],
});
