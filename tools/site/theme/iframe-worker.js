/* A page opened from the disk may not start a worker, and the search is one.
   Here a hidden frame plays the worker: it loads the same script and passes the same messages. */
if (location.protocol === "file:") {
  window.Worker = window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      const script = new URL(url, location.href).href;
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.appendChild(frame);
      const inside = frame.contentWindow;
      const load = (address) => new Promise((done, failed) => {
        const tag = inside.document.createElement("script");
        tag.src = address;
        tag.onload = done;
        tag.onerror = failed;
        inside.document.head.appendChild(tag);
      });
      inside.postMessage = (data) => {
        const event = new MessageEvent("message", { data });
        this.dispatchEvent(event);
        if (this.onmessage) this.onmessage(event);
      };
      /* The search script awaits nothing from importScripts but its effect; it does await what
         it returns where that is a promise. */
      inside.importScripts = (...all) =>
        all.reduce((before, one) => before.then(() => load(new URL(one, script).href)), Promise.resolve());
      load(script).then(() => {
        this.deliver = (data) => inside.dispatchEvent(new inside.MessageEvent("message", { data }));
        this.waiting.forEach(this.deliver);
      });
    }
    postMessage(data) {
      if (this.deliver) this.deliver(data);
      else this.waiting.push(data);
    }
    terminate() {}
  };
}
