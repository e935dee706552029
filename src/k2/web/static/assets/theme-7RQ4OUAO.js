{let t=null;try{t=localStorage.getItem("k2.theme")}catch{}(t==="dark"||t==="light")&&(document.documentElement.dataset.theme=t)}
