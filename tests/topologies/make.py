#!/usr/bin/env python3
"""Writes the hand-made topologies beside it: hwloc v2 XML of nodes shaped as vendors describe theirs.

What counts for placement is in them: packages, NUMA nodes, cores, PCI trees, RDMA devices, NVLinks.
What does not (caches, sizes of BARs, serial numbers) is left out."""
import os

HERE = os.path.dirname(os.path.abspath(__file__))


def bits(numbers):
    """hwloc's spelling of a set: 32 bits a word, the highest first."""
    value = sum(1 << number for number in set(numbers))
    words = []
    while True:
        words.append(f"0x{value & 0xffffffff:08x}")
        value >>= 32
        if not value:
            return ",".join(reversed(words))


class Node:
    """A machine of `packages`, each with `nodes` NUMA nodes of `cores` cores with two threads."""

    def __init__(self, name, processor, packages, nodes, cores, memory_gb):
        self.name, self.processor, self.shape = name, processor, (packages, nodes, cores)
        self.memory = memory_gb * 10**9
        self.devices = {}   # NUMA node → lines
        self.gp = 0
        self.gpu_gp = []
        self.links = []     # (kind:gp index)
        self.values = []
        self.switches = []

    def next_gp(self):
        self.gp += 1
        return self.gp

    def cores_of(self, node):
        packages, nodes, cores = self.shape
        total = packages * nodes * cores
        first = node * cores
        return [[core, core + total] for core in range(first, first + cores)]

    def bridge(self, bus, kind, first, last, inside, parent_bus=None):
        tag = f'<object type="Bridge" gp_index="{self.next_gp()}" bridge_type="{kind}" depth="0" ' \
              f'bridge_pci="0000:[{first:02x}-{last:02x}]"'
        if kind == "1-1":
            tag += f' pci_busid="0000:{bus:02x}:{parent_bus or 0:02x}.0" pci_type="0604 [1000:c010] [1000:100b] b0"'
        return [tag + ">", *inside, "</object>"]

    def gpu(self, bus, number, model):
        gp = self.next_gp()
        self.gpu_gp.append(gp + 1)
        self.gp += 1
        return [f'<object type="PCIDev" gp_index="{gp}" pci_busid="0000:{bus:02x}:00.0" '
                f'pci_type="0302 [10de:20b0] [10de:134f] a1" pci_link_speed="31.5">',
                f'<object type="OSDev" gp_index="{gp + 1}" name="nvml{number}" subtype="NVML" osdev_type="1">',
                f'<info name="GPUModel" value="{model}"/>',
                f'<info name="NVIDIAUUID" value="GPU-{number:08x}-0000-4000-8000-{bus:012x}"/>',
                "</object>", "</object>"]

    def nic(self, bus, number, interface, state=4):
        gp = self.next_gp()
        self.gp += 2
        return [f'<object type="PCIDev" gp_index="{gp}" pci_busid="0000:{bus:02x}:00.0" '
                f'pci_type="0207 [15b3:101b] [15b3:0007] 00" pci_link_speed="31.5">',
                f'<object type="OSDev" gp_index="{gp + 1}" name="{interface}" osdev_type="2"/>',
                f'<object type="OSDev" gp_index="{gp + 2}" name="mlx5_{number}" osdev_type="3">',
                f'<info name="Port1State" value="{state}"/>', "</object>", "</object>"]

    def ethernet(self, bus, interface):
        gp = self.next_gp()
        self.gp += 1
        return [f'<object type="PCIDev" gp_index="{gp}" pci_busid="0000:{bus:02x}:00.0" '
                f'pci_type="0200 [8086:1533] [8086:1533] 03" pci_link_speed="1.0">',
                f'<object type="OSDev" gp_index="{gp + 1}" name="{interface}" osdev_type="2"/>', "</object>"]

    def switch(self, root, ports):
        """A host bridge, a root port and a PCI switch. Behind each of its ports: a device, or a second
        switch with several."""
        first, last = root + 1, root + 15
        inside = []
        for port, devices in enumerate(ports):
            if len(devices) > 1:
                below = []
                for place, device in enumerate(devices):
                    below += self.bridge(root + 4, "1-1", first, last, device, 4 * port + place)
                devices = [self.bridge(root + 3, "1-1", first, last, below, port)]
            inside += self.bridge(root + 2, "1-1", first, last, devices[0], port)
        up = self.bridge(root + 1, "1-1", first, last, inside)
        return self.bridge(root, "0-1", root, last, self.bridge(root, "1-1", first, last, up))

    def host(self, root, inside):
        return self.bridge(root, "0-1", root, root + 15, inside)

    def put(self, node, lines):
        self.devices.setdefault(node, []).extend(lines)

    def nvswitches(self, count, node, root, mbps):
        """Every GPU joined to every switch."""
        lines, switches = [], []
        for number in range(count):
            gp = self.next_gp()
            switches.append(gp)
            lines.append(f'<object type="PCIDev" gp_index="{gp}" subtype="NVSwitch" pci_busid='
                         f'"0000:{root + 1 + number:02x}:00.0" pci_type="0680 [10de:22a3] [10de:1796] a1"/>')
        self.put(node, self.host(root, lines))
        gpus = len(self.gpu_gp)
        self.links = [f"OSDev:{gp}" for gp in self.gpu_gp] + [f"PCIDev:{gp}" for gp in switches]
        size = gpus + count
        self.values = [[1000000 if a == b else mbps if (a < gpus) != (b < gpus) else 0 for b in range(size)]
                       for a in range(size)]

    def nvlinks(self, matrix):
        self.links = [f"OSDev:{gp}" for gp in self.gpu_gp]
        self.values = [[1000000 if a == b else value for b, value in enumerate(row)]
                       for a, row in enumerate(matrix)]

    def write(self):
        packages, nodes, cores = self.shape
        everything = [pu for node in range(packages * nodes) for core in self.cores_of(node) for pu in core]
        sets = lambda pus, numa: f'cpuset="{bits(pus)}" complete_cpuset="{bits(pus)}" ' \
                                 f'nodeset="{bits(numa)}" complete_nodeset="{bits(numa)}"'
        out = ['<?xml version="1.0" encoding="UTF-8"?>', '<!DOCTYPE topology SYSTEM "hwloc2.dtd">',
               "<!-- made by make.py -->", '<topology version="2.0">']
        every_node = range(packages * nodes)
        out.append(f'<object type="Machine" os_index="0" {sets(everything, every_node)} '
                   f'allowed_cpuset="{bits(everything)}" allowed_nodeset="{bits(every_node)}" gp_index="{self.next_gp()}">')
        for package in range(packages):
            mine = range(package * nodes, (package + 1) * nodes)
            pus = [pu for node in mine for core in self.cores_of(node) for pu in core]
            out.append(f'<object type="Package" os_index="{package}" {sets(pus, mine)} gp_index="{self.next_gp()}">')
            out.append(f'<info name="CPUModel" value="{self.processor}"/>')
            for node in mine:
                out += self.node_lines(node, sets, nodes > 1)
            out.append("</object>")
        out.append("</object>")
        out += self.link_lines()
        out.append("</topology>")
        with open(os.path.join(HERE, self.name + ".xml"), "w") as file:
            file.write("\n".join(out) + "\n")

    def node_lines(self, node, sets, grouped):
        pus = [pu for core in self.cores_of(node) for pu in core]
        out = []
        if grouped:
            out.append(f'<object type="Group" {sets(pus, [node])} gp_index="{self.next_gp()}" kind="0" subkind="0">')
        out.append(f'<object type="NUMANode" os_index="{node}" {sets(pus, [node])} '
                   f'gp_index="{self.next_gp()}" local_memory="{self.memory}"/>')
        for number, core in enumerate(self.cores_of(node)):
            out.append(f'<object type="Core" os_index="{number}" {sets(core, [node])} gp_index="{self.next_gp()}">')
            for pu in core:
                out.append(f'<object type="PU" os_index="{pu}" {sets([pu], [node])} gp_index="{self.next_gp()}"/>')
            out.append("</object>")
        out += self.devices.get(node, [])
        if grouped:
            out.append("</object>")
        return out

    def link_lines(self):
        if not self.links:
            return []
        out = [f'<distances2hetero nbobjs="{len(self.links)}" kind="25" name="NVLinkBandwidth">']
        words = " ".join(self.links) + " "
        out.append(f'<indexes length="{len(words)}">{words}</indexes>')
        for row in self.values:
            words = " ".join(str(value) for value in row) + " "
            out.append(f'<u64values length="{len(words)}">{words}</u64values>')
        return out + ["</distances2hetero>"]


def dgx_a100():
    """Two GPUs and two NICs behind each of four switches, on the odd NUMA nodes; two NICs for storage."""
    machine = Node("dgx-a100", "AMD EPYC 7742 64-Core Processor", 2, 4, 16, 125)
    for first, (node, root) in zip((0, 2, 4, 6), ((3, 0x00), (1, 0x40), (7, 0x80), (5, 0xb0))):
        # A NIC's number is not its GPU's: behind each switch the two are crossed.
        nics = first + (2 if first >= 4 else 0)
        machine.put(node, machine.switch(root, [
            [machine.gpu(root + 7, first, "A100-SXM4-80GB"), machine.nic(root + 8, nics + 1, f"ib{nics + 1}")],
            [machine.gpu(root + 10, first + 1, "A100-SXM4-80GB"), machine.nic(root + 11, nics, f"ib{nics}")]]))
    machine.put(2, machine.host(0x20, machine.nic(0x21, 4, "ens4") + machine.ethernet(0x22, "eno1")))
    machine.put(4, machine.host(0x60, machine.nic(0x61, 5, "ens5", state=1)))
    machine.nvswitches(6, 0, 0xd0, 50000)
    machine.write()


def dgx_h100():
    """A GPU and a NIC behind each of eight switches, two NUMA nodes."""
    machine = Node("dgx-h100", "Intel Xeon Platinum 8480C", 2, 1, 56, 1000)
    roots = (0x00, 0x10, 0x20, 0x30, 0x80, 0x90, 0xa0, 0xb0)
    numbers = (0, 3, 4, 5, 6, 9, 10, 11)
    for gpu, (root, number) in enumerate(zip(roots, numbers)):
        machine.put(gpu // 4, machine.switch(root, [[machine.gpu(root + 5, gpu, "H100 80GB HBM3")],
                                                     [machine.nic(root + 6, number, f"ib{number}")]]))
    machine.put(0, machine.host(0x40, machine.ethernet(0x41, "eno1") + machine.nic(0x42, 1, "ens1")))
    machine.nvswitches(4, 1, 0xc0, 112500)
    machine.write()


def sixteen():
    """16 GPUs and 16 NICs: two pairs behind each of eight switches on four NUMA nodes."""
    machine = Node("16gpu-16nic", "made up", 2, 2, 24, 500)
    for at in range(8):
        root = at * 0x18
        gpu = 2 * at
        machine.put(at // 2, machine.switch(root, [
            [machine.gpu(root + 5, gpu, "GPU"), machine.nic(root + 6, 15 - gpu, f"ib{15 - gpu}")],
            [machine.gpu(root + 8, gpu + 1, "GPU"), machine.nic(root + 9, 14 - gpu, f"ib{14 - gpu}")]]))
    machine.nvswitches(6, 0, 0xc8, 150000)
    machine.write()


def cube_mesh():
    """Eight GPUs in a hybrid cube mesh, one or two NVLinks a pair, two GPUs a NIC."""
    machine = Node("cube-mesh", "Intel Xeon E5-2698 v4", 2, 1, 20, 256)
    for at in range(4):
        root = at * 0x20
        machine.put(at // 2, machine.switch(root, [[machine.gpu(root + 5, 2 * at, "V100-SXM2-32GB")],
                                                    [machine.gpu(root + 6, 2 * at + 1, "V100-SXM2-32GB")],
                                                    [machine.nic(root + 7, at, f"ib{at}")]]))
    one, two = 25000, 50000
    links = {(0, 1): one, (0, 2): one, (0, 3): two, (0, 4): two, (1, 2): two, (1, 3): one, (1, 5): two,
             (2, 3): two, (2, 6): one, (3, 7): one, (4, 5): one, (4, 6): one, (4, 7): two, (5, 6): two,
             (5, 7): one, (6, 7): two}
    machine.nvlinks([[links.get((min(a, b), max(a, b)), 0) for b in range(8)] for a in range(8)])
    machine.write()


if __name__ == "__main__":
    dgx_a100()
    dgx_h100()
    sixteen()
    cube_mesh()
