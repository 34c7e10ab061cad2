import importlib, time
def test_x():
    s = importlib.import_module("ftmodel.strategies")
    print(s.__file__)
    class E:
        def __init__(self): self.steps=[]
        def apply(self, step): self.steps.append(step)
        def end(self): pass
        def abandon(self): pass
    for ex, st in ((5,20),(20,30)):
        t=time.time(); made=[]
        def opener(w,p,l,m):
            if len(made)>=ex: return None
            made.append(E()); return made[-1]
        s.generate(opener, examples=ex, steps=st, seed=3, timeouts_ms=(9000,11000))
        print(ex, st, time.time()-t, [len(e.steps) for e in made])
